"""How many special tokens stand around a text in what a network is given, and so which place is whose."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Framing:
  """How many stand before and after a text, as its tokenizer puts them; the first or the last of all stands for it.

  A token is known by its place, not by its id: a [SEP] that stands in a text itself is one of its tokens.
  """

  before: int
  after: int

  @property
  def cls_is_first(self) -> bool:
    """Whether the token of the whole text, which pooling `cls` takes, is the first of all, and not the last."""
    return self.before > 0


BERT_FRAMING = Framing(1, 1)  # [CLS] … [SEP]
XLNET_FRAMING = Framing(0, 2)  # … <sep> <cls>
