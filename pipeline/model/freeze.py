"""`sorbus freeze`: a checkpoint becomes an encoder folder that needs nothing else."""

import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

from pipeline.model.bert_graph import build_graph
from pipeline.model.bert_numpy import bert_probabilities, bert_vector
from pipeline.model.checkpoint import Checkpoint, weights_sha256
from pipeline.model.choose_head import choose_head
from pipeline.model.choose_readout import Layer, choose_readout
from pipeline.model.read_checkpoint import read_checkpoint
from pipeline.model.whole_folder import whole_folder, writing
from transforms.casing import casing_warning, fit_casing
from transforms.encoder import load_encoder
from transforms.encoder_spec import (
  GRAPH_FILE,
  SPEC_FILE,
  VOCAB_FILE,
  EncoderSpec,
  Head,
  Readout,
  SelfTest,
  Source,
  TensorNames,
  read_spec,
)
from transforms.errors import EncoderError, UsageError
from transforms.storage import sha256
from transforms.wordpiece import TokenizerSettings

DEFAULT_MAX_SEQ_LENGTH = 256
CASING_WHY = {
  "stated": "stated by the folder",
  "guessed": "by the vocabulary's letters",
  "default": "BERT's default, for the folder says nothing",
}
# Tokens of the self-test's sequences; the longest the encoder takes comes on top, up to _LONGEST_CASE.
_CASE_LENGTHS = (2, 3, 8, 21, 55)
_TWICE = 8
_LONGEST_CASE = 128
# Float32 forward passes are within 1e-6 to 1e-5 of float64 ones, relative to the largest value; wrong kernels are not.
_RELATIVE_TOLERANCE = 1e-4


@dataclass(frozen=True, kw_only=True)
class TokenizerOptions:
  """How texts are cut into tokens, where it is not as the folder or the vocabulary says.

  Attributes:
    lowercase: together with `strip_accents`, unless that is given too.
  """

  lowercase: bool | None = None
  strip_accents: bool | None = None
  tokenize_chinese_chars: bool | None = None


@dataclass(frozen=True, kw_only=True)
class FreezeOptions(TokenizerOptions):
  """What a person may decide; None is what the folder states, or the default.

  Attributes:
    pooling, combine, exclude_special_tokens: as in `Readout`.
    layers: as the user counts them, 0…L or −L…−1, or `first-last` for 1 and L.
    max_seq_length: tokens of a text, [CLS] and [SEP] with them.
    overwrite: replace another encoder that stands in the folder, if nothing else does.
    fingerprint: of the one encoder that it may become, where a whitening that goes with it is there already.
    head: `softmax` or `sigmoid`, whose probabilities come with each vector.
    labels: file with the names of the head's labels.
  """

  pooling: str | None = None
  layers: tuple[Layer, ...] | None = None
  combine: str | None = None
  exclude_special_tokens: bool = False
  max_seq_length: int | None = None
  activation: str | None = None
  bert_config: str | None = None
  vocab: str | None = None
  overwrite: bool = False
  fingerprint: str | None = None
  head: str | None = None
  labels: str | None = None


@dataclass(frozen=True)
class Choices:
  """What the options and the folder come to, with where each was taken from."""

  readout: Readout
  max_seq_length: int
  tokenizer: TokenizerSettings
  lines: tuple[str, ...]
  head: Head | None = None


def freeze(path: str, encoder_dir: str, options: FreezeOptions, say: Callable[[str], None] = print) -> EncoderSpec:
  """Freezes a checkpoint into a local folder, loads it again, and runs its self-test.

  Nothing half-written remains: the folder appears whole, and only when the test has passed.

  Args:
    path: a checkpoint's folder or prefix.
    encoder_dir: a new or empty folder, or one with the same encoder (then nothing is done).
    options: what a person decided.
    say: takes the lines that tell what was taken and why.

  Raises:
    EncoderError: the checkpoint cannot be frozen, or the folder holds something else or cannot be written.
    UsageError: options that do not go together.
  """
  target = target_folder(encoder_dir, options.overwrite)
  checkpoint = read_checkpoint(
    path, bert_config=options.bert_config, vocab=options.vocab, activation=options.activation
  )
  choices = choose(checkpoint, options)
  variables = checkpoint.used(choices.readout, choices.head is not None)
  others = len(checkpoint.variables) + checkpoint.ignored - len(variables)
  say(f"checkpoint: {checkpoint.name} ({checkpoint.kind}, {len(variables)} variables used, {others} others ignored)")
  for line in choices.lines:
    say(line)
  vocab = "".join(f"{token}\n" for token in checkpoint.vocabulary).encode()
  draft = _draft(checkpoint, choices, weights_sha256(variables), sha256(vocab))
  check_fingerprint(draft, options.fingerprint)
  if stands_already(target, draft, options.overwrite):
    load_encoder(str(target))  # tests itself
    say(f"{target}: unchanged, encoder {draft.fingerprint[:12]} stands there already")
    return read_spec(str(target))
  graph, tensors = build_graph(variables, checkpoint.config, choices.readout, choices.head)
  test = make_self_test(checkpoint, choices, variables)
  spec = replace(draft, tensors=tensors, graph_sha256=sha256(graph), self_test=test)
  del variables, checkpoint  # a large model is in memory often enough while it is loaded again
  error = write_folder(target, spec, graph, vocab)
  say(f"{target}: encoder {spec.fingerprint[:12]}, {len(graph) / 1e6:.1f} MB; self-test passed, off by {error:.1e}")
  return spec


def choose(checkpoint: Checkpoint, options: FreezeOptions) -> Choices:
  """Resolves the options against what the checkpoint states; raises UsageError where they do not go together."""
  readout, readout_lines = choose_readout(
    checkpoint,
    pooling=options.pooling,
    layers=options.layers,
    combine=options.combine,
    exclude_special_tokens=options.exclude_special_tokens,
  )
  head, head_lines = choose_head(checkpoint, readout, kind=options.head, labels=options.labels)
  length, length_why = _choose_length(checkpoint, options)
  tokenizer, casing = choose_tokenizer(checkpoint.tokenizer, CASING_WHY[checkpoint.casing], options)
  config = checkpoint.config
  lines = (
    f"model: {config.layers} layers, hidden size {config.hidden_size}, activation {config.activation}, "
    f"{config.vocab_size} tokens",
    *readout_lines,
    *head_lines,
    f"max-seq-length: {length} ({length_why})",
    casing,
    *casing_warnings(checkpoint.vocabulary, tokenizer),
    *(f"note: {note}" for note in checkpoint.notes),
  )
  return Choices(readout, length, tokenizer, lines, head)


def make_self_test(checkpoint: Checkpoint, choices: Choices, variables: dict[str, np.ndarray]) -> SelfTest:
  """Returns token sequences with the vectors, and the head's probabilities, of the float64 forward pass."""
  cases = make_cases(checkpoint.vocabulary, min(choices.max_seq_length, _LONGEST_CASE))
  if choices.readout.exclude_special_tokens:
    cases = tuple(case for case in cases if len(case) > 2)  # the others have no token that counts
  vectors = [bert_vector(variables, checkpoint.config, case, choices.readout) for case in cases]
  head = choices.head
  rows = [bert_probabilities(variables, checkpoint.config, case, head.kind) for case in cases] if head else []
  return as_self_test(cases, vectors, rows)


def as_self_test(
  cases: tuple[tuple[int, ...], ...], vectors: Sequence[np.ndarray], probabilities: Sequence[np.ndarray] = ()
) -> SelfTest:
  """Returns cases, their vectors [W] and probabilities as a self-test, with the tolerance for vectors of that size."""
  tolerance = _RELATIVE_TOLERANCE * max(1.0, float(np.abs(vectors).max()))
  return SelfTest(cases, _rounded(vectors), tolerance, _rounded(probabilities))


def _rounded(rows: Sequence[np.ndarray]) -> tuple[tuple[float, ...], ...]:
  return tuple(tuple(float(f"{x:.9g}") for x in row) for row in rows)


def make_cases(vocabulary: Sequence[str], longest: int) -> tuple[tuple[int, ...], ...]:
  """Returns ids drawn from the whole vocabulary between [CLS] and [SEP], always the same; the last is the longest.

  Two have one length, so that more than that tells them apart.
  """
  generator = np.random.default_rng(0)
  cls_id, sep_id = vocabulary.index("[CLS]"), vocabulary.index("[SEP]")
  lengths = sorted([*{min(length, longest) for length in (*_CASE_LENGTHS, longest)}, min(_TWICE, longest)])
  return tuple((cls_id, *generator.integers(len(vocabulary), size=n - 2).tolist(), sep_id) for n in lengths)


def _choose_length(checkpoint: Checkpoint, options: FreezeOptions) -> tuple[int, str]:
  limit = checkpoint.config.max_position_embeddings
  if options.max_seq_length is not None:
    if not 3 <= options.max_seq_length <= limit:
      raise UsageError(
        f"--max-seq-length {options.max_seq_length}: choose 3 to {limit}, the positions that the model has"
      )
    return options.max_seq_length, "asked for"
  if checkpoint.max_seq_length is not None:
    return checkpoint.max_seq_length, "stated by the folder"
  why = "default" if limit >= DEFAULT_MAX_SEQ_LENGTH else "the positions that the model has"
  return min(DEFAULT_MAX_SEQ_LENGTH, limit), why


def choose_tokenizer(settings: TokenizerSettings, why: str, options: TokenizerOptions) -> tuple[TokenizerSettings, str]:
  """Returns what was asked for, else `settings`, and the line that says so; `why` says where these are from."""
  if options.lowercase is not None:
    settings, why = replace(settings, lowercase=options.lowercase, strip_accents=options.lowercase), "asked for"
  if options.strip_accents is not None:
    settings, why = replace(settings, strip_accents=options.strip_accents), "asked for"
  if options.tokenize_chinese_chars is not None:
    settings, why = replace(settings, tokenize_chinese_chars=options.tokenize_chinese_chars), "asked for"
  return settings, f"casing: {_describe(settings)} ({why})"


def casing_warnings(vocabulary: tuple[str, ...], settings: TokenizerSettings) -> Iterator[str]:
  """Yields the line that says so where a casing does not go with a vocabulary."""
  if warning := casing_warning(fit_casing(vocabulary, settings), settings):
    yield f"warning: {warning}"


def _describe(settings: TokenizerSettings) -> str:
  return ", ".join(
    (
      "lower-cased" if settings.lowercase else "as it stands",
      "accents stripped" if settings.strip_accents else "accents kept",
      "Chinese characters apart" if settings.tokenize_chinese_chars else "Chinese characters in words",
    )
  )


def _draft(checkpoint: Checkpoint, choices: Choices, weights: str, vocab: str) -> EncoderSpec:
  """The spec as far as it is known before the graph is built: all that the fingerprint is over."""
  return EncoderSpec(
    fingerprint="",
    source=Source(checkpoint.kind, _source_name(Path(checkpoint.name).resolve())),
    config=checkpoint.config,
    head=choices.head,
    layers=choices.readout.layers,
    combine=choices.readout.combine,
    pooling=choices.readout.pooling,
    exclude_special_tokens=choices.readout.exclude_special_tokens,
    max_seq_length=choices.max_seq_length,
    tokenizer=choices.tokenizer,
    tensors=TensorNames("", "", ""),
    weights_sha256=weights,
    vocab_sha256=vocab,
    graph_sha256="",
    for_cosine=checkpoint.for_cosine,
    self_test=SelfTest((), (), 0.0),
    versions=library_versions(),
  ).with_fingerprint()


def library_versions() -> dict[str, str]:
  """Returns the versions that made an encoder, for `encoder.json`."""
  libraries = ("tensorflow", "numpy", "tokenizers")
  return {name: version(name) for name in libraries} | {"python": platform.python_version()}


def _source_name(path: Path) -> str:
  """A folder's name; a prefix says little without the name of its folder."""
  return path.name if path.is_dir() else f"{path.parent.name}/{path.name}"


def target_folder(encoder_dir: str, overwrite: bool) -> Path:
  """Returns the local folder to write; raises UsageError or EncoderError if something else would be lost there."""
  if "://" in encoder_dir:
    raise UsageError(f"{encoder_dir}: freeze into a local folder, then copy that; reading an encoder from there works")
  target = Path(encoder_dir)
  with writing(target):
    if target.exists() and not target.is_dir():
      raise UsageError(f"{encoder_dir}: is a file; give a folder that is new or empty")
    if target.is_dir():
      _check_content(target, overwrite)
  return target


def _check_content(target: Path, overwrite: bool) -> None:
  """Raises UsageError for a folder that is no encoder's, or has more in it that would be lost when it is replaced."""
  ours = {target / name for name in (GRAPH_FILE, VOCAB_FILE, SPEC_FILE)}
  found = set(target.iterdir())
  if found and target / SPEC_FILE not in found:
    raise UsageError(f"{target}: holds something that is no encoder; give a folder that is new or empty")
  others = sorted(path.name for path in found if path not in ours or path.is_dir())
  if overwrite and others:
    raise UsageError(f"{target}: holds {others[0]}, which is no encoder's and would be lost; give another folder")


def check_fingerprint(draft: EncoderSpec, wanted: str | None) -> None:
  """Raises UsageError if the encoder will not be the one that a whitening was fitted for."""
  if wanted and wanted not in draft.variants():
    raise UsageError(
      f"--whitening: fitted on vectors of encoder {wanted[:16]}, this checkpoint with these options is encoder "
      f"{draft.fingerprint[:16]}; give the options that the run's encoder was frozen with, or a run of this one"
    )


def stands_already(target: Path, draft: EncoderSpec, overwrite: bool) -> bool:
  """Says whether the folder holds this very encoder; raises EncoderError if it holds another."""
  if overwrite or not (target / SPEC_FILE).exists():
    return False
  try:
    found = read_spec(str(target)).fingerprint
  except EncoderError as error:
    raise EncoderError(f"{error}, with --overwrite") from error
  if found != draft.fingerprint:
    raise EncoderError(
      f"{target}: holds another encoder, {found[:12]}, this is {draft.fingerprint[:12]}; "
      "give another folder, or --overwrite"
    )
  return True


def write_folder(target: Path, spec: EncoderSpec, graph: bytes, vocab: bytes) -> float:
  """Writes the folder beside its place, tests it, and moves it there; returns the self-test's error."""
  with whole_folder(target) as new:
    new.mkdir()
    (new / GRAPH_FILE).write_bytes(graph)
    (new / VOCAB_FILE).write_bytes(vocab)
    (new / SPEC_FILE).write_text(spec.to_json(), encoding="utf-8")
    error = load_encoder(str(new)).self_test_error
    assert error is not None, new
    return error
