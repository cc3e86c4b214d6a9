"""The plots of a report: inline SVG by matplotlib, in the page's own colours and fonts. The same facts, the same bytes.

matplotlib is imported by whoever draws, once: `sorbus --help` should not wait for it.
"""

import html
import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np

from pipeline.report_vectors import Cosines, Map, Spectrum
from transforms.errors import printable

# Each is drawn in a colour that nothing else has, which becomes the page's variable: so one SVG serves both themes.
_COLOURS = {"ink": "#010203", "muted": "#040506", "line": "#070809", "leaf": "#0a0b0c", "berry": "#0d0e0f"}
_STYLE: dict[Any, Any] = {
  "svg.fonttype": "none",  # text stays text: small, searchable, in the page's font
  "svg.hashsalt": "sorbus",
  "font.size": 13,
  "text.color": _COLOURS["muted"],
  "figure.facecolor": "none",
  "axes.facecolor": "none",
  "axes.edgecolor": _COLOURS["line"],
  "axes.labelcolor": _COLOURS["muted"],
  "axes.linewidth": 1.0,
  "axes.spines.top": False,
  "axes.spines.right": False,
  "axes.spines.left": False,
  "axes.grid": True,
  "axes.grid.axis": "y",
  "axes.axisbelow": True,
  "grid.color": _COLOURS["line"],
  "grid.linewidth": 0.8,
  "xtick.color": _COLOURS["line"],
  "ytick.color": _COLOURS["line"],
  "xtick.labelcolor": _COLOURS["muted"],
  "ytick.labelcolor": _COLOURS["muted"],
  "ytick.major.size": 0,
}
_WIDTH, _HEIGHT = 5.8, 3.5  # inches; narrow, so that its letters can still be read where the page is a phone's
_MARGINS = (0.86, 0.62, 0.24, 0.12)  # inches on the left, below, on the right, above: for what stands beside the axes
_SHOWN_CHARACTERS = 140  # of a text on hover


# In place of matplotlib's formulas, each of which takes longer than its plot.
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def token_lengths(lengths: Mapping[int, int], longest: int | None, rows: str = "documents") -> str:
  """Draws how many of the rows have how many tokens; those cut at `longest` in another colour, None where none is."""

  def draw(axes: Any) -> None:
    most = max(lengths)
    edges = np.unique(np.linspace(0, most + 1, min(most, 48) + 1).round())
    values, weights = (np.array(list(column)) for column in (lengths.keys(), lengths.values()))
    axes.hist(values, edges, weights=weights, color=_COLOURS["leaf"], rwidth=0.88)
    if longest is not None:
      cut = values == longest
      axes.hist(values[cut], edges, weights=weights[cut], color=_COLOURS["berry"], rwidth=0.88)
    axes.set_xlabel(f"tokens of a {rows.removesuffix('s')}")
    _thousands(axes)
    axes.set_xlim(0, most + 1)

  return _svg("token-lengths", f"Histogram of the {rows}' numbers of tokens", draw)


def variance_kept(found: Spectrum) -> str:
  """Draws the share of the variance in the first k components, with the number that is kept."""

  def draw(axes: Any) -> None:
    k = np.arange(1, len(found.cumulative) + 1)
    axes.fill_between(k[: found.n_components], 100 * found.cumulative[: found.n_components], color=_COLOURS["leaf"],
                      alpha=0.16, linewidth=0)  # fmt: skip
    axes.plot(k, 100 * found.cumulative, color=_COLOURS["leaf"], linewidth=2)
    _mark(axes, found)
    axes.set_ylim(0, 103)
    axes.set_xlabel("components, largest first")
    axes.set_ylabel("% of the variance")

  return _svg("variance-kept", "Share of the variance in the first components", draw)


def variances(found: Spectrum) -> str:
  """Draws the variance of each component, as a share of the largest, on a logarithmic scale."""

  def draw(axes: Any) -> None:
    shares = np.maximum(found.variances / max(found.variances[0], 1e-300), 1e-12)
    axes.plot(np.arange(1, len(shares) + 1), shares, color=_COLOURS["leaf"], linewidth=2)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: f"10{str(round(np.log10(value))).translate(_RAISED)}")
    _mark(axes, found)
    axes.set_xlabel("component")
    axes.set_ylabel("variance, the largest = 1")
    axes.minorticks_off()
    axes.set_ylim(max(float(shares.min()) / 2, 1e-7), 1.5)  # of layer-normalised vectors the last is 0

  return _svg("variances", "Variance of each principal component", draw)


def _mark(axes: Any, found: Spectrum) -> None:
  """Draws where the components end that are kept."""
  axes.axvline(found.n_components, color=_COLOURS["berry"], linewidth=1.4, linestyle=(0, (4, 3)))
  axes.set_xlim(1, max(len(found.variances), 2))


def cosine_histograms(cosines: Cosines, is_whitened: bool) -> str:
  """Draws the cosines of random pairs before and, where there is a whitening, after it."""

  def draw(axes: Any) -> None:
    both = np.concatenate((cosines.before, cosines.after))
    low, high = max(-1.0, float(both.min()) - 0.03), min(1.0, float(both.max()) + 0.03)
    bins = np.linspace(low, high, 81)
    drawn = [(cosines.before, "muted", "before whitening")]
    drawn = [*drawn, (cosines.after, "leaf", "after")] if is_whitened else [(cosines.before, "leaf", "cosine")]
    for values, colour, name in drawn:
      shares = 100 / len(values) * np.ones(len(values))
      axes.hist(values, bins, weights=shares, color=_COLOURS[colour], alpha=0.35, histtype="stepfilled")
      axes.hist(values, bins, weights=shares, color=_COLOURS[colour], histtype="step", linewidth=1.6, label=name)
    axes.set_xlabel("cosine of two different texts")
    axes.set_ylabel("% of the pairs")
    axes.set_xlim(low, high)

  return _svg("cosines", "Histogram of cosines of random pairs of texts", draw)


def map_of_texts(found: Map, texts: Sequence[str]) -> str:
  """Draws documents as points, each with its text on hover."""

  def draw(axes: Any) -> None:
    axes.scatter(*found.points.T, s=22, color=_COLOURS["leaf"], alpha=0.5, linewidths=0, gid="texts")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    axes.margins(0.03)

  svg = _svg("map", "Documents in the plane of most variance", draw, height=5.8, margins=(0.1,) * 4)
  titles = (f"<title>{html.escape(_shown(text))}</title>" for text in texts)
  # matplotlib draws a point as an empty <use>, in their order; nothing else of an SVG can be hovered over.
  points = svg.index('id="map-texts"')
  hovered = re.sub(r"<use ([^>]*?)/>", lambda use: f"<use {use[1]}>{next(titles, '')}</use>", svg[points:])
  return svg[:points] + hovered


def _shown(text: str) -> str:
  line = printable(" ".join(text.split()))
  return line if len(line) <= _SHOWN_CHARACTERS else f"{line[:_SHOWN_CHARACTERS]}…"


def _thousands(axes: Any) -> None:
  axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value < 1e5 else f"{value / 1e3:,.0f}k")


def _svg(
  name: str,
  title: str,
  draw: Callable[[Any], None],
  height: float = _HEIGHT,
  margins: tuple[float, ...] = _MARGINS,
) -> str:
  """Returns a figure as an <svg> element whose ids no other one of the page has.

  Margins are given: to fit them, and to save by `savefig`, matplotlib would draw everything twice more.
  """
  import matplotlib
  from matplotlib.backends.backend_svg import FigureCanvasSVG
  from matplotlib.figure import Figure

  left, below, right, above = margins
  with matplotlib.rc_context({**matplotlib.rcParamsDefault, **_STYLE}):
    figure = Figure(figsize=(_WIDTH, height))
    figure.subplots_adjust(left / _WIDTH, below / height, 1 - right / _WIDTH, 1 - above / height)
    draw(figure.add_subplot())
    written, canvas = io.StringIO(), cast(Any, FigureCanvasSVG(figure))
    canvas.print_svg(written, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
  return _inline(written.getvalue(), name, title)


def _inline(svg: str, name: str, title: str) -> str:
  """Returns what is between <svg> and </svg> of a file, as part of a page: its colours, its font, ids of its own."""
  view_box = re.search(r'viewBox="([^"]+)"', svg)
  assert view_box, "matplotlib writes one"
  body = svg[svg.index(">", svg.index("<svg")) + 1 : svg.rindex("</svg>")]
  body = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->|<style.*?</style>", "", body, flags=re.DOTALL)
  body = re.sub(r'(id="|xlink:href="#|url\(#)', rf"\1{name}-", body)
  body = re.sub(r"font-family: [^;\"]+", "font-family: var(--sans)", body)
  for variable, colour in _COLOURS.items():
    body = body.replace(colour, f"var(--{variable})")
  body = re.sub(r"\s*\n\s*", "\n", body).strip()
  return f'<svg class="plot" role="img" aria-label="{html.escape(title)}" viewBox="{view_box[1]}">{body}</svg>'
