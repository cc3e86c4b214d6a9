"""Links from page to page, as a reader follows them: the file is there, and so is the heading."""

import re

import pytest

from tests.conftest import REPOSITORY

PAGES = [REPOSITORY / "README.md", REPOSITORY / "CHANGELOG.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
PAGES += sorted(REPOSITORY.glob("examples/*/README.md"))


def anchors(page):
  headings = re.findall(r"^#+ (.*)", page.read_text(encoding="utf-8"), re.MULTILINE)
  return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix())
def test_no_link_of_a_page_is_dead(page):
  for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
    path, _, anchor = link.partition("#")
    target = page.parent / path if path else page
    if "://" not in link:
      assert target.exists() and (not anchor or anchor in anchors(target)), link


def test_every_page_can_be_found_from_the_readme():
  found, new = set(), {PAGES[0]}
  while new:
    found |= new
    links = {
      (page.parent / link).resolve() for page in new for link in re.findall(r"\]\(([^)#]+\.md)", page.read_text())
    }
    new = {link for link in links if link.is_file()} - found
  assert set(PAGES) - found <= {REPOSITORY / "CHANGELOG.md"}
