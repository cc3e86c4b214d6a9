"""What a sample says of its corpus: documents, tokens, what is new of them, and the batches that a run will make."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.forecast import Count, count_documents, cut_batches, cut_lots, padding_share
from transforms.digests import MAX_BITS, bucket_of, digest_array
from transforms.long_texts import CHUNKS, TRUNCATED, LongTexts
from transforms.long_tokens import tokenise_long
from transforms.spread_sample import SpreadSample
from transforms.text_chunks import cut_rows
from transforms.tokenizer import Tokenizer, Tokens
from transforms.window_pool import Windows


@dataclass(frozen=True)
class SampledCorpus:
  """What is known of a corpus by a sample; shares are those of the sample.

  A row is a document that would not be rejected, or where long texts are cut into chunks, a chunk of one.

  Attributes:
    documents: of the corpus.
    n_sampled: documents in the sample, rejected ones among them.
    sampled_bytes: what of the listed bytes was read.
    is_whole: the sample is the corpus.
    n_rejected: documents of the sample that would be rejected.
    n_accepted: rows of the sample.
    n_distinct: texts among these.
    n_new: texts among these that are not in the store.
    known: share of the rows whose text is in the store.
    input_ids: int32, tokens of the new texts, each text once.
    windows: of the new texts; one that fits is one window.
    buckets: int [n_new], of each new text, the finest: of 2**MAX_BITS.
    mean_tokens, truncated, unknown: of rows: tokens each with the special ones, share cut off, share of tokens that
      are [UNK].
  """

  documents: Count
  n_sampled: int
  sampled_bytes: int
  is_whole: bool
  n_rejected: int
  n_accepted: int
  n_distinct: int
  n_new: int
  known: float
  input_ids: np.ndarray
  windows: Windows
  buckets: np.ndarray
  mean_tokens: float
  truncated: float
  unknown: float

  @property
  def rejected(self) -> float:
    """Share of the documents that would be rejected."""
    return self.n_rejected / self.n_sampled if self.n_sampled else 0.0

  @property
  def accepted(self) -> int:
    """Rows of the corpus."""
    return round(self.documents.number * self.n_accepted / self.n_sampled) if self.n_sampled else 0

  @property
  def to_encode(self) -> int:
    """Texts of the corpus that are new; repeats are known within the sample only, so there may be fewer."""
    return round(self.accepted * self.n_new / self.n_accepted) if self.n_accepted else 0

  @property
  def tokens_to_encode(self) -> float:
    """Of the new texts of the corpus; those in which windows overlap count in each."""
    return self.to_encode * len(self.input_ids) / self.n_new if self.n_new else 0.0

  def batches(self, bits: int, token_budget: int) -> list[np.ndarray]:
    """Returns batches of windows of new texts int64 [B], as a run of 2**bits buckets makes them, shortest first."""
    buckets = self.buckets >> (MAX_BITS - bits) if self.is_whole else None
    lots = cut_lots(self.n_new, self.to_encode, 1 << bits, buckets)
    return cut_batches(self.windows.lengths, [self.windows.of(lot) for lot in lots], token_budget)

  def computed_tokens(self, batches: Sequence[np.ndarray]) -> float:
    """Returns the tokens that a run has to encode, padding counted as in these batches."""
    return self.tokens_to_encode / (1 - padding_share(self.windows.lengths, batches))


def look_into(
  sample: SpreadSample,
  tokenizer: Tokenizer,
  held: Callable[[np.ndarray], np.ndarray],
  limit: int | None,
  long_texts: LongTexts = TRUNCATED,
) -> SampledCorpus:
  """Tokenises a sample and says what its corpus is like.

  Args:
    sample: of the corpus.
    tokenizer: the encoder's.
    held: says of each digest [N] (S16) whether the store has its text, bool [N].
    limit: documents of the run at most; None for all.
    long_texts: what the run does with them.
  """
  documents = count_documents(sample.counts, sample.sizes, sample.total_bytes, is_whole=sample.is_whole)
  if limit is not None and limit < documents.number:
    documents = Count(limit, 0)
  texts = [row.text for row in sample.rows]
  if long_texts.mode == CHUNKS:
    texts = [chunk.text for found in cut_rows(sample.rows, tokenizer, long_texts) for chunk in found]
  every = tokenise_long(tokenizer, texts, long_texts)
  accepted = np.flatnonzero(every.lengths > 2)  # more than the specials
  digests = digest_array(texts[i] for i in accepted.tolist())
  known = held(digests)
  _, first = np.unique(digests, return_index=True)
  new = first[~known[first]]
  n_tokens, tokens = int(every.n_tokens[accepted].sum()), take(every, accepted[new])
  return SampledCorpus(
    documents=documents,
    n_sampled=sample.documents,
    sampled_bytes=round(float(sample.sizes.sum())),
    is_whole=sample.is_whole,
    n_rejected=sample.documents - len(sample.rows) + len(texts) - len(accepted),  # without a token nothing is cut
    n_accepted=len(accepted),
    n_distinct=len(first),
    n_new=len(new),
    known=float(known.mean()) if len(known) else 0.0,
    input_ids=tokens.input_ids,
    windows=Windows.find(tokens.input_ids, tokens.offsets, tokenizer.before, tokenizer.after),
    buckets=bucket_of(digests[new], MAX_BITS),
    mean_tokens=n_tokens / len(accepted) if len(accepted) else 0.0,
    truncated=float(every.truncated[accepted].mean()) if len(accepted) else 0.0,
    unknown=float(every.n_unknown[accepted].sum()) / n_tokens if n_tokens else 0.0,
  )


def take(tokens: Tokens, rows: np.ndarray) -> Tokens:
  """Returns the tokens of some texts, int [N]."""
  lengths = tokens.lengths[rows]
  offsets = np.append(0, np.cumsum(lengths))
  places = np.repeat(tokens.offsets[rows] - offsets[:-1], lengths) + np.arange(offsets[-1])
  return Tokens(
    tokens.input_ids[places], offsets, tokens.truncated[rows], tokens.n_unknown[rows], tokens.n_tokens[rows]
  )
