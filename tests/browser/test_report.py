"""A report as a browser shows it: in both themes, as wide as a desk and as narrow as a phone.

`make test-browser` runs it; a Chromium that is on the machine is used, SORBUS_CHROMIUM or the one in the PATH.
"""

import datetime

import pytest

from pipeline.report import write_report
from tests.browser.chromium import ARGUMENTS, find_chromium

NOON = datetime.datetime(2024, 2, 29, 12, 0, 0, tzinfo=datetime.UTC)
SECTIONS = ["counts", "speed", "tokens", "rejected", "vectors", "last", "texts", "ran"]
WIDTHS = {"desk": (1200, 900), "phone": (390, 844)}


@pytest.fixture(scope="module")
def browser():
  playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (requirements-dev.txt)")
  if (path := find_chromium()) is None:
    pytest.skip("needs Chromium, which is not on this machine; SORBUS_CHROMIUM names one elsewhere")
  with playwright.sync_playwright() as p:
    chromium = p.chromium.launch(executable_path=path, args=ARGUMENTS)
    yield chromium
    chromium.close()


@pytest.fixture(scope="module")
def url(reported, tmp_path_factory):
  """A report with everything in it, hostile texts too."""
  path = tmp_path_factory.mktemp("report") / "report.html"
  write_report(reported, reported.run_ids()[-1], str(path), with_texts=True, now=lambda: NOON)
  return path.as_uri()


@pytest.fixture(params=["light", "dark"])
def theme(request):
  return request.param


@pytest.fixture(params=WIDTHS)
def width(request):
  return request.param


@pytest.fixture
def page(browser, url, theme, width):
  """The open page; what it said, did and asked for stands in `said`."""
  size = dict(zip(("width", "height"), WIDTHS[width], strict=True))
  context = browser.new_context(viewport=size, color_scheme=theme)
  page = context.new_page()
  page.said = []
  page.on("console", lambda message: page.said.append(message.text))
  page.on("pageerror", lambda error: page.said.append(str(error)))
  page.on("dialog", lambda dialog: page.said.append(dialog.message))
  page.on("request", lambda request: page.said.append(request.url) if request.url != url else None)
  page.goto(url)
  yield page
  context.close()


def test_it_renders_in_silence_and_asks_for_nothing(page):
  assert page.said == []
  assert [section.get_attribute("id") for section in page.query_selector_all("section")] == SECTIONS


def test_the_page_never_scrolls_sideways(page, width):
  assert page.evaluate("document.documentElement.scrollWidth") <= WIDTHS[width][0]
  outside = """boxes => boxes.filter(box => box.getBoundingClientRect().right > innerWidth + 1
    && !box.closest(".scroll")).map(box => box.outerHTML.slice(0, 200))"""
  assert page.eval_on_selector_all("main *:not(svg *)", outside) == []


def test_all_columns_of_the_input_files_can_be_seen_at_once(page):
  width = """table => {
    ["documents/" + "part-".repeat(20), "123.4 MB", "234,567", "234,567", "234,567"].forEach(
      (value, i) => table.rows[1].cells[i].textContent = value);
    return table.getBoundingClientRect().width - table.parentElement.clientWidth;
  }"""
  assert page.eval_on_selector(".scroll > table.files", width) <= 0


def test_every_plot_is_drawn_in_letters_that_can_be_read(page):
  sizes = page.eval_on_selector_all("svg.plot", "plots => plots.map(plot => plot.getBoundingClientRect().height)")
  assert len(sizes) == 5 and min(sizes) > 100
  heights = page.eval_on_selector_all("svg.plot text", "texts => texts.map(t => t.getBoundingClientRect().height)")
  assert min(heights) > 7  # CSS pixels; exponents of the logarithmic axis are the smallest


def test_text_stands_out_from_its_ground_in_both_themes(page, theme):
  body, ink = page.evaluate("(s => [s.backgroundColor, s.color])(getComputedStyle(document.body))")
  dark, light = sorted((body, ink), key=lambda colour: sum(map(int, colour[4:-1].split(","))))
  assert (body == dark) == (theme == "dark") and contrast(dark, light) > 7  # WCAG's AAA
  shown = "selector => getComputedStyle(document.querySelector(selector)).color"
  muted, badge = (page.evaluate(shown, selector) for selector in (".muted", ".badge"))
  assert contrast(*sorted_by_light(muted, body)) > 4.5 and contrast(*sorted_by_light(badge, body)) > 4.5  # AA


def sorted_by_light(*colours):
  return sorted(colours, key=luminance)


def luminance(colour):
  parts = [int(part) / 255 for part in colour[4:-1].split(",")]
  linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
  return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(darker, lighter):
  return (luminance(lighter) + 0.05) / (luminance(darker) + 0.05)


def test_a_point_of_the_map_has_its_text(page):
  titles = page.eval_on_selector_all("#map-texts use title", "titles => titles.map(title => title.textContent)")
  assert len(titles) == 371 and any(title.startswith("<script>alert('x')</script>") for title in titles)
