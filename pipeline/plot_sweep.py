"""A picture of a sweep: agreement by layer, a panel a pooling, a line a number of components."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.show_evaluation import number
from pipeline.show_sweep import layers

_PANELS = ("mean", "cls", "max")
_RAW = "#777777"


def plot_sweep(found: Mapping[str, Any], path: str) -> None:
  """Draws what `run_sweep` returned to an SVG or a PNG file."""
  import matplotlib as mpl
  from matplotlib.figure import Figure  # no window, nor any state of pyplot

  lines = [line for line in found["lines"] if line["spearman"] is not None]
  components = sorted({line["n_components"] for line in lines if line["n_components"] is not None})
  colours = mpl.colormaps["viridis"].resampled(len(components) + 1)
  styles = {None: (_RAW, "--")} | {K: (colours(i), "-") for i, K in enumerate(components)}
  figure = Figure(figsize=(12, 4.2), layout="constrained")
  panels = figure.subplots(1, len(_PANELS), sharey=True)
  for axes, pooling in zip(panels, _PANELS, strict=True):
    _draw_panel(axes, _of_panel(lines, pooling), styles, pooling)
  best = found["lines"][0]
  panels[0].set_ylabel("Spearman's correlation")
  panels[-1].legend(title="components", frameon=False, fontsize="small")
  K = "raw" if best["n_components"] is None else f"{best['n_components']} components"
  figure.suptitle(f"best: {best['pooling']} of {layers(best)}, {K}, {number(best['spearman'])}", fontsize="medium")
  figure.savefig(path, dpi=150)


def _of_panel(lines: Sequence[Mapping[str, Any]], pooling: str) -> list[Mapping[str, Any]]:
  """The lines of a pooling; the pooler stands on [CLS]."""
  return [line for line in lines if line["pooling"] == pooling or (pooling, line["pooling"]) == ("cls", "pooler")]


def _place(line: Mapping[str, Any]) -> tuple[int, Sequence[int], str]:
  """Where a line stands: single layers by number, then averages, then the pooler; with what is written there."""
  if line["pooling"] == "pooler":
    return 2, (), "pooler"
  some = line["layers"]
  several = f"{some[0]} to {some[-1]}" if len(some) > 2 else "+".join(map(str, some))
  return int(len(some) > 1), some, several


def _draw_panel(axes: Any, lines: Sequence[Mapping[str, Any]], styles: Mapping[Any, Any], title: str) -> None:
  places = sorted({_place(line) for line in map(_frozen, lines)})
  at = {place: i for i, place in enumerate(places)}
  for K, (colour, style) in styles.items():
    chosen = sorted((at[_place(_frozen(line))], line["spearman"]) for line in lines if line["n_components"] == K)
    single = [(x, y) for x, y in chosen if places[x][0] == 0]
    axes.plot(*zip(*single, strict=True), style, color=colour, marker=".", label="raw" if K is None else str(K))
    others = [(x, y) for x, y in chosen if places[x][0] > 0]  # no line leads from layer to layer there
    if others:
      axes.plot(*zip(*others, strict=True), ".", color=colour)
  axes.set_xticks(range(len(places)), [place[2] for place in places], rotation=90 if len(places) > 8 else 0)
  axes.set_title(f"{title} of layer", fontsize="medium")
  axes.grid(alpha=0.3)


def _frozen(line: Mapping[str, Any]) -> Mapping[str, Any]:
  """The same with its layers as a tuple, which can stand in a set."""
  return {**line, "layers": tuple(line["layers"])}
