"""What README.md, the pages of docs/ and those of examples have in their code blocks, as a reader would copy it."""

import re
from dataclasses import dataclass
from functools import cache

from tests.conftest import REPOSITORY

_BENEATH = (*sorted(REPOSITORY.glob("docs/*.md")), *sorted(REPOSITORY.glob("examples/*/README.md")))
PAGES = ("README.md", *(path.relative_to(REPOSITORY).as_posix() for path in _BENEATH))


@dataclass(frozen=True)
class Block:
  """A code block: the word behind its fence, and its text."""

  language: str
  text: str


@cache
def blocks(page: str) -> tuple[Block, ...]:
  """Every code block of a page, in its order."""
  text = (REPOSITORY / page).read_text(encoding="utf-8")
  return tuple(Block(*found) for found in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))


def shell_lines(block: Block) -> list[str]:
  """The command lines of a block, each as one line; of a block that shows output too, those behind a prompt."""
  lines = block.text.replace("\\\n", " ").splitlines()
  is_shell = block.language in ("sh", "bash", "console") or (
    not block.language and re.match(r"\$ |sorbus |make ", block.text)
  )
  if not is_shell:
    return []
  if any(line.startswith("$ ") for line in lines):
    lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
  return [line for line in lines if line.strip() and not line.startswith("#")]


def commands(page: str, program: str = "sorbus") -> list[str]:
  """The commands of a page that call a program, with what they say of their exit code."""
  found = [part.strip() for block in blocks(page) for line in shell_lines(block) for part in re.split(r"&&|\|", line)]
  return [part for part in found if part.split()[0].rpartition("/")[2] == program]


def inline(page: str) -> list[str]:
  """What the text of a page shows of our commands, between backticks; it may be a beginning only."""
  text = (REPOSITORY / page).read_text(encoding="utf-8")
  text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
  return [re.sub(r"\s+", " ", found) for found in re.findall(r"`(sorbus\s[^`]+)`", text)]
