import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from pipeline.report_plots import cosine_histograms, map_of_texts, token_lengths, variance_kept, variances
from pipeline.report_vectors import Cosines, Map, Spectrum

SPECTRUM = Spectrum(np.geomspace(1, 1e-9, 32), 10)
COSINES = Cosines(np.linspace(0.2, 0.9, 500), np.linspace(-0.3, 0.3, 500))
MAP = Map(np.random.default_rng(0).normal(size=(3, 2)), 0.5)
HOSTILE = '<script>alert(1)</script> & "more"'


def all_plots():
  return [
    token_lengths({3: 10, 17: 4, 32: 6}, 32),
    variance_kept(SPECTRUM),
    variances(SPECTRUM),
    cosine_histograms(COSINES, is_whitened=True),
    map_of_texts(MAP, ["one", "two", HOSTILE]),
  ]


def parse(svg):
  """As XML, in which a page's <svg> would have this prefix."""
  return ET.fromstring(svg.replace("<svg ", '<svg xmlns:xlink="x" ', 1))


@pytest.fixture(scope="module")
def plots():
  return all_plots()


def test_the_same_facts_give_the_same_bytes(plots):
  assert all_plots() == plots


def test_a_plot_is_one_element_whose_ids_no_other_has(plots):
  ids = [[element.get("id") for element in parse(svg).iter() if element.get("id")] for svg in plots]
  together = [name for own in ids for name in own]
  assert len(set(together)) == len(together)
  for svg, own in zip(plots, ids, strict=True):
    used = re.findall(r'(?:href="|url\()#([^")]+)', svg)
    assert used and set(used) <= set(own)


def test_colours_and_fonts_are_the_pages_own(plots):
  for svg in plots:
    assert not re.search(r"#[0-9a-f]{6}\b", svg) and "DejaVu" not in svg and "<style" not in svg
  assert "var(--leaf)" in plots[0] and "var(--berry)" in plots[0] and "var(--sans)" in plots[0]


def test_nothing_is_asked_of_the_network_and_no_time_is_told(plots):
  assert not [svg for svg in plots if "http" in svg or "metadata" in svg or re.search(r"20\d\d-\d\d", svg)]


def test_documents_that_were_cut_have_a_colour_of_their_own():
  assert "var(--berry)" not in token_lengths({3: 10, 17: 4, 32: 6}, None)


def test_without_a_whitening_there_is_one_histogram():
  both, one = (cosine_histograms(COSINES, is_whitened=whitened) for whitened in (True, False))
  assert "var(--muted); opacity" in both and "var(--muted); opacity" not in one


def test_a_point_has_its_text_on_hover_and_a_text_is_never_markup():
  svg = map_of_texts(MAP, ["one\n two", "x" * 1000, HOSTILE])
  titles = [title.text for title in parse(svg).iter("title")]
  assert titles == ["one two", f"{'x' * 140}…", HOSTILE]
  assert "<script" not in svg


@pytest.mark.parametrize("lengths", [{2: 1}, {512: 3}, {1: 1, 2: 1}])
def test_few_lengths_are_drawn_too(lengths):
  assert parse(token_lengths(lengths, None)).get("viewBox")


def test_one_component_is_drawn_too():
  for draw in (variance_kept, variances):
    assert parse(draw(Spectrum(np.array([0.0]), 1))).get("viewBox")


def test_numbers_of_an_axis_are_short_enough_for_its_margin():
  assert ">10⁻²<" in variances(SPECTRUM) and ">10⁰<" in variances(SPECTRUM)
  assert re.findall(r">(\d+k)<", token_lengths({3: 250_000, 9: 10}, None))[-1] == "250k"
  assert ">8,000<" in token_lengths({3: 8_100, 9: 10}, None)
