"""Is it good: cosines of an encoder, raw and whitened, against scores that people gave; or, without any, isotropy.

No Beam, and TensorFlow only as an encoder is loaded. `sweep.py` does the same for every layer and pooling at once.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.dataset import Dataset, whitening_bytes
from pipeline.diff import read_moments
from pipeline.options import FIT, NONE
from pipeline.show import unknown_warning
from transforms.drift import NEIGHBOURS, changed_neighbours
from transforms.encoder import Encoder, EncoderSpec, load_encoder
from transforms.errors import UsageError
from transforms.isotropy import Isotropy
from transforms.long_texts import TRUNCATED, LongTexts
from transforms.moments import Moments
from transforms.pair_scores import Agreement, cosines_of, margin_of_gain
from transforms.pairs import Pairs
from transforms.tokenizer import Tokenizer
from transforms.whitening import Whitening, WhiteningError, check_n_components, load_whitening, normalise

# Differences of Spearman's correlation under this are not worth advice, however sure they are.
CLEAR = 0.01
# Distinct texts a component from which on a whitening that is fitted on the judged texts says what a corpus would: with
# fewer it fits their chance, and may even turn the verdict around.
TEXTS_A_COMPONENT = 10
# Mean cosine of random pairs from which on directions are uneven: a BERT as it was pre-trained lies far above it, one
# that was trained for similarity below (docs/evaluating.md has figures).
UNEVEN = 0.3
THESE_TEXTS = "these texts"

# Rows that are widened to float64 at a time.
_ROWS = 1 << 14

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class WhiteningOptions:
  """Which whitening the raw vectors are compared with.

  Attributes:
    whitening: `fit`, `none`, or a file as `sorbus embed --whitening` takes it.
    fit_on: a dataset, to fit on the raw vectors of its published run; None: on the texts that are evaluated.
    n_components: as in `Whitening.fit`.
    precision: of the encoder.
  """

  whitening: str = FIT
  fit_on: str | None = None
  n_components: int | float | None = None
  precision: str = "float32"

  def __post_init__(self) -> None:
    if self.fit_on is not None and self.whitening != FIT:
      raise UsageError(f"--fit-on goes with --whitening fit, not {self.whitening}; leave one of them out")
    if self.n_components is not None and self.whitening == NONE:
      raise UsageError("--n-components: without a whitening there is nothing to reduce; leave one of them out")


@dataclass(frozen=True, eq=False)
class FoundWhitening:
  """A whitening, and what it was fitted on (`these texts`, or a dataset) or else the file that it was loaded from."""

  whitening: Whitening
  fitted_on: str | None = None
  loaded_from: str | None = None

  def describe(self) -> dict[str, Any]:
    """Returns what the JSON says of it."""
    return {
      "n_components": self.whitening.n_components,
      "fitted_on": self.fitted_on,
      "loaded_from": self.loaded_from,
      "documents": self.whitening.count,
      "kept_variance": self.whitening.kept_variance,
    }


@dataclass(frozen=True, eq=False)
class PairTexts:
  """The M distinct texts of those P pairs whose texts both have a token.

  Attributes:
    pairs: these pairs.
    texts: M.
    first, second: int64 [P], which text each is.
    left_out: pairs with a text without a token.
    truncated: distinct texts with more tokens than the encoder takes.
  """

  pairs: Pairs
  texts: tuple[str, ...]
  first: NDArray[np.int64]
  second: NDArray[np.int64]
  left_out: int
  truncated: int

  @classmethod
  def of(cls, pairs: Pairs, tokenizer: Tokenizer) -> "PairTexts":
    """Finds them; raises UsageError if fewer than three pairs are left, or all have one score."""
    every = list(dict.fromkeys((*pairs.first, *pairs.second)))
    tokens = tokenizer.tokenise(every)
    has_token = dict(zip(every, (tokens.lengths > 2).tolist(), strict=True))
    kept = pairs.select(
      np.array([has_token[a] and has_token[b] for a, b in zip(pairs.first, pairs.second, strict=True)])
    )
    if len(kept) < 3:
      raise UsageError(f"{pairs.name}: {len(kept)} pairs of texts with a token are too few to correlate; give more")
    if not np.ptp(kept.scores):
      raise UsageError(
        f"{pairs.name}: every score is {kept.scores[0]:g}, so there is no order to agree with; give others"
      )
    texts = {text: i for i, text in enumerate(dict.fromkeys((*kept.first, *kept.second)))}
    first, second = (np.array([texts[text] for text in column]) for column in (kept.first, kept.second))
    return cls(kept, tuple(texts), first, second, len(pairs) - len(kept), int(tokens.truncated.sum()))

  def moments(self, vectors: NDArray[Any]) -> Moments:
    """Returns the moments of the texts' vectors [M, H], each as often as it occurs in the pairs."""
    occurrences = np.bincount(self.first, minlength=len(self.texts)) + np.bincount(
      self.second, minlength=len(self.texts)
    )
    blocks = (Moments.from_vectors(vectors[rows], occurrences[rows]) for rows in _blocks(len(vectors)))
    return sum(blocks, start=Moments.empty(vectors.shape[1]))

  def cosines(self, vectors: NDArray[Any], whitening: Whitening | None = None) -> NDArray[np.float64]:
    """Returns the cosine [P] of each pair, of the texts' raw vectors [M, H] or of what a whitening makes of them."""
    found = np.empty(len(self.first))
    for rows in _blocks(len(found)):
      one, other = vectors[self.first[rows]], vectors[self.second[rows]]
      found[rows] = cosines_of(one, other) if whitening is None else cosines_of(*map(whitening.reduce, (one, other)))
    return found

  def agreement(self, cosines: NDArray[np.float64]) -> Agreement:
    """Returns how well cosines [P] of the pairs agree with the scores."""
    return Agreement.of(cosines, self.pairs.scores, binary=self.pairs.are_binary)


def _blocks(n: int) -> Iterator[slice]:
  return (slice(start, start + _ROWS) for start in range(0, n, _ROWS))


def evaluate_pairs(folders: Sequence[str], pairs: Pairs, options: WhiteningOptions, say: Say) -> dict[str, Any]:
  """Returns what `sorbus evaluate --pairs --json` prints.

  Raises:
    UsageError: an encoder or whitening that cannot be had, or too few pairs.
    WhiteningError: the texts do not determine the whitening, with what to choose.
  """
  results = [_on_pairs(folder, pairs, options, say) for folder in folders]
  labels = {"pairs": pairs.name, "count": len(pairs), "binary": pairs.are_binary}
  return {"kind": "pairs", **labels, "encoders": results}


def _on_pairs(folder: str, pairs: Pairs, options: WhiteningOptions, say: Say) -> dict[str, Any]:
  encoder = _load(folder, options)
  known = PairTexts.of(pairs, encoder.tokenizer)
  say(f"encoding {len(known.texts):,} texts with {folder}")
  vectors = encoder.encode_texts(known.texts)
  cosines = known.cosines(vectors)
  raw = known.agreement(cosines)
  found = find_whitening(options, encoder.spec, pairs.name, lambda: known.moments(vectors))
  after = known.cosines(vectors, found.whitening) if found else None
  whitened = known.agreement(after) if after is not None else None
  margin = margin_of_gain(cosines, after, known.pairs.scores) if after is not None else None
  counts = {"pairs": len(known.pairs), "left_out": known.left_out, "texts": len(known.texts)}
  return {
    **_describe_encoder(folder, encoder.spec),
    **counts,
    "truncated": known.truncated,
    "raw": {"n_components": vectors.shape[1], **asdict(raw)},
    "whitened": found.describe() | asdict(whitened) if found and whitened else None,
    "margin": margin,
    "verdict": too_few_texts(found, len(known.texts))
    or verdict_on_pairs(raw, whitened, margin, len(known.pairs), for_cosine=encoder.spec.for_cosine),
  }


def evaluate_corpus(
  folders: Sequence[str], texts: Sequence[str], options: WhiteningOptions, say: Say
) -> dict[str, Any]:
  """Returns what `sorbus evaluate --corpus --json` prints, of a sample of texts; raises as `evaluate_pairs`."""
  return {"kind": "corpus", "sample": len(texts), "encoders": [_on_texts(f, texts, options, say) for f in folders]}


def _on_texts(folder: str, texts: Sequence[str], options: WhiteningOptions, say: Say) -> dict[str, Any]:
  encoder = _load(folder, options)
  tokens = encoder.tokenizer.tokenise(texts)
  known = [text for text, length in zip(texts, tokens.lengths, strict=True) if length > 2]
  if len(known) <= NEIGHBOURS:
    raise UsageError(f"--corpus: {len(known)} texts with a token are too few to look for {NEIGHBOURS} neighbours")
  say(f"encoding {len(known):,} texts with {folder}")
  if warning := unknown_warning(int(tokens.n_unknown.sum()), int((tokens.lengths - 2).sum())):
    say(f"warning: {warning}")
  vectors = encoder.encode_texts(known)
  raw = Isotropy.of(vectors)
  found = find_whitening(options, encoder.spec, "--corpus", lambda: Moments.from_vectors(vectors))
  whitened = _whitened_isotropy(vectors, found) if found else None
  verdict = verdict_on_texts(raw.mean_cosine, for_cosine=encoder.spec.for_cosine)
  return {
    **_describe_encoder(folder, encoder.spec),
    "texts": len(known),
    "left_out": len(texts) - len(known),
    "truncated": int(tokens.truncated.sum()),
    "raw": {"n_components": vectors.shape[1], **asdict(raw)},
    "whitened": whitened,
    "verdict": "; ".join(filter(None, (verdict, too_few_texts(found, len(known))))),
  }


def _whitened_isotropy(vectors: NDArray[Any], found: FoundWhitening) -> dict[str, Any]:
  reduced = found.whitening.reduce(vectors)
  usable = normalise(reduced)[1]
  isotropy = Isotropy.of(reduced[usable])
  changed = changed_neighbours(normalise(vectors[usable].astype(np.float64))[0], normalise(reduced[usable])[0])
  return found.describe() | asdict(isotropy) | {"recall_at_10": 1 - changed}


def find_whitening(
  options: WhiteningOptions, spec: EncoderSpec, name: str, of_texts: Callable[[], Moments]
) -> FoundWhitening | None:
  """Returns the whitening that is asked for; None for none.

  Args:
    options: what is asked.
    spec: of the encoder whose vectors it is for.
    name: what errors call the texts.
    of_texts: gives the moments of the texts that are evaluated.
  """
  check_n_components(options.n_components, spec.vector_size)
  if options.whitening == NONE:
    return None
  if options.whitening != FIT:
    return FoundWhitening(_load_whitening(options, spec), loaded_from=options.whitening)
  moments = of_texts() if options.fit_on is None else _published_moments(options.fit_on, spec)
  try:
    fitted = Whitening.fit(moments, options.n_components, spec.fingerprint)
  except WhiteningError as error:
    raise WhiteningError(f"{options.fit_on or name}: {error}") from error
  return FoundWhitening(fitted, fitted_on=options.fit_on or THESE_TEXTS)


def _load_whitening(options: WhiteningOptions, spec: EncoderSpec) -> Whitening:
  return load_whitening(
    whitening_bytes(options.whitening),
    options.whitening,
    hidden_size=spec.vector_size,
    encoder_fingerprint=spec.fingerprint,
    n_components=options.n_components,
  )


def _load(folder: str, options: WhiteningOptions) -> Encoder:
  """Loads an encoder; where a run's vectors are fitted on, it treats long texts as that run did."""
  long_texts = TRUNCATED if options.fit_on is None else LongTexts.of(_published(options.fit_on)[1])
  return load_encoder(folder, precision=options.precision, long_texts=long_texts)


def _published(url: str) -> tuple[Dataset, dict[str, Any]]:
  """Returns a dataset with the manifest of its published run; raises UsageError if there is none."""
  dataset = Dataset.open(url)
  published = dataset.published()
  if published is None:
    raise UsageError(f"--fit-on {url}: nothing is published yet; `sorbus show {url}` says which runs there are")
  return dataset, dataset.manifest(published.run_id)


def _published_moments(url: str, spec: EncoderSpec) -> Moments:
  """Returns the moments of a dataset's published run; raises UsageError where they are of another encoder's vectors."""
  dataset, manifest = _published(url)
  theirs = manifest["encoder"]["fingerprint"]
  if theirs != spec.fingerprint:
    other = spec.variants().get(theirs)
    remedy = f"add --precision {other.precision}" if other else "give that one, or leave --fit-on out"
    raise UsageError(
      f"--fit-on {url}: its vectors are of encoder {theirs[:16]}, this one is {spec.fingerprint[:16]} in "
      f"{spec.precision}; {remedy}"
    )
  moments = read_moments(dataset, manifest)
  if moments is None:
    raise UsageError(f"--fit-on {url}: run {manifest['run_id']} has no moments; embed again with --again")
  return moments


def _describe_encoder(folder: str, spec: EncoderSpec) -> dict[str, Any]:
  return {
    "encoder": folder,
    "fingerprint": spec.fingerprint,
    **asdict(spec.readout),
    "precision": spec.precision,
    "max_seq_length": spec.max_seq_length,
    "for_cosine": spec.for_cosine,
  }


def too_few_texts(found: FoundWhitening | None, texts: int) -> str | None:
  """Says that a whitening was fitted on too few of the very texts that are judged; None if it was not."""
  if found is None or found.fitted_on != THESE_TEXTS or texts >= TEXTS_A_COMPONENT * found.whitening.n_components:
    return None
  return (
    f"{texts:,} texts are too few to fit {found.whitening.n_components} components and judge them by the same texts: "
    "fit on a corpus (--fit-on) to tell"
  )


def verdict_on_pairs(
  raw: Agreement, whitened: Agreement | None, margin: float | None, pairs: int, *, for_cosine: bool
) -> str:
  """Says in a sentence whether whitening helps, by Spearman's correlation, `CLEAR`, and `margin_of_gain` of the pairs.

  Where the margin is larger than `CLEAR`, and the difference not larger than the margin, there are too few pairs.
  """
  if whitened is None:
    return "no whitening was asked for, so there is nothing to compare"
  if raw.spearman is None or whitened.spearman is None:
    return "nothing can be said: all cosines are the same"
  gain = whitened.spearman - raw.spearman
  numbers = f"Spearman {raw.spearman:.3f} raw, {whitened.spearman:.3f} whitened"
  if margin is None:
    return f"{pairs:,} pairs are too few to tell whether whitening helps ({numbers})"
  if abs(gain) <= margin and margin > CLEAR:
    return (
      f"{pairs:,} pairs are too few to tell whether whitening helps ({numbers}): differences up to {margin:.3f} may be "
      "chance"
    )
  if gain >= CLEAR:
    return f"whitening raises agreement here ({numbers}): use it"
  if gain > -CLEAR:
    return f"whitening makes no clear difference here ({numbers})"
  why = "; this encoder was trained for similarity" if for_cosine else ""
  return f"whitening lowers agreement here ({numbers}){why}: embed with --whitening none"


def verdict_on_texts(mean_cosine: float, *, for_cosine: bool) -> str:
  """Says in a sentence what to expect of whitening where there are no scores, by the raw mean cosine and `UNEVEN`."""
  of_pairs = f"two random texts have cosine {mean_cosine:.2f} on average"
  if for_cosine:
    return f"this encoder was trained for similarity, and {of_pairs}: take it as it is, with --whitening none"
  if mean_cosine >= UNEVEN:
    return f"raw vectors all point much the same way ({of_pairs}): whitening is likely to help; scored pairs would tell"
  return f"raw vectors are spread out already ({of_pairs}): whitening may help little; scored pairs would tell"
