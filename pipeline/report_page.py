"""Render the facts of a run as one HTML file that needs nothing else: no network, no script, no file beside it.

jinja2 escapes whatever the facts hold: ids, texts and file names are strangers' input. Only our own plots are not.
"""

import datetime
import functools
from importlib import resources
from typing import Any

from pipeline import report_plots
from pipeline.compare_manifests import show_value
from pipeline.report_facts import Facts
from transforms.errors import printable

_TEMPLATE = "report_page.html"
_SHOWN_CHARACTERS = 400  # of a text


def render(facts: Facts) -> str:
  """Returns the page; the same facts in the same time zone give the same page."""
  from markupsafe import Markup

  plots = {name: Markup(svg) for name, svg in draw_plots(facts).items()}
  return str(_template().render(facts=facts, m=facts.manifest, plots=plots, share=show_share))


@functools.cache
def _template() -> Any:
  """Returns the template, compiled once for all pages of this process."""
  import jinja2

  environment = jinja2.Environment(
    autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
  )
  environment.filters |= {
    "number": lambda value: f"{value:,}",
    "size": show_bytes,
    "duration": show_duration,
    "when": show_time,
    "value": show_value,
    "short": shorten,
  }
  return environment.from_string(resources.files("pipeline").joinpath(_TEMPLATE).read_text(encoding="utf-8"))


def draw_plots(facts: Facts) -> dict[str, str]:
  """Returns the plots that there are facts for, by name."""
  plots, sample = {}, facts.sample
  if sample and sample.rows:
    longest = max(sample.lengths) if sample.truncated else None
    plots["lengths"] = report_plots.token_lengths(sample.lengths, longest, facts.rows.split()[0])
  if facts.spectrum:
    plots["variance_kept"] = report_plots.variance_kept(facts.spectrum)
    plots["variances"] = report_plots.variances(facts.spectrum)
  if facts.cosines:
    plots["cosines"] = report_plots.cosine_histograms(facts.cosines, facts.is_whitened)
  if facts.map and sample and sample.texts is not None:
    plots["map"] = report_plots.map_of_texts(facts.map, [sample.texts[row] for row in facts.points])
  return plots


def show_share(part: float, whole: float) -> str:
  """Returns a share as people read it: what is not nothing is not shown as 0%."""
  if not part or not whole:
    return "0%"
  share = 100 * part / whole
  return "<0.1%" if share < 0.05 else f"{share:.1f}%"


def show_bytes(number: int) -> str:
  """Returns a size, such as 1.5 MB."""
  for factor, unit in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
    if number >= factor:
      return f"{number / factor:,.1f} {unit}"
  return f"{number} bytes"


def show_duration(seconds: float) -> str:
  """Returns a time that something took, such as 1 min 30 s."""
  whole = round(seconds)
  if whole < 60:
    return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
  minutes, rest = divmod(whole, 60)
  return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def show_time(time: datetime.datetime) -> str:
  """Returns a time in the local zone, with UTC beside it unless that is the same."""
  local, utc = time.astimezone(), time.astimezone(datetime.UTC)
  if not local.utcoffset():
    return f"{utc:%a} {utc.day} {utc:%b %Y, %H:%M:%S} UTC"
  same_day = f"{utc:%H:%M:%S}" if utc.date() == local.date() else f"{utc.day} {utc:%b, %H:%M:%S}"
  return f"{local:%a} {local.day} {local:%b %Y, %H:%M:%S} {local.tzname()} ({same_day} UTC)"


def shorten(text: str) -> str:
  """Returns a text in one line of bounded length, without characters that cannot be seen."""
  line = printable(" ".join(text.split()))
  return line if len(line) <= _SHOWN_CHARACTERS else f"{line[:_SHOWN_CHARACTERS]}…"
