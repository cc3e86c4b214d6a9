"""The special tokens that stand around a text in what a network is given, and so which place is whose."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Framing:
  """Names of the special tokens before and after a text; the one that stands for it is the first or the last of all.

  A token is known by its place, not by its id: a [SEP] that stands in a text itself is one of its tokens.
  """

  before: tuple[str, ...]
  after: tuple[str, ...]

  @property
  def size(self) -> int:
    """How many there are."""
    return len(self.before) + len(self.after)

  @property
  def cls_is_first(self) -> bool:
    """Whether the token of the whole text, which pooling `cls` takes, is the first of all, and not the last."""
    return bool(self.before)

  def around(self, ids: Sequence[int], vocabulary: Sequence[str]) -> tuple[int, ...]:
    """Returns token ids with those of the special tokens around them."""
    before, after = (map(vocabulary.index, names) for names in (self.before, self.after))
    return (*before, *ids, *after)


BERT_FRAMING = Framing(("[CLS]",), ("[SEP]",))
XLNET_FRAMING = Framing((), ("<sep>", "<cls>"))
