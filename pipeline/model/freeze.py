"""`sorbus freeze`: a checkpoint becomes an encoder folder that needs nothing else."""

import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

from pipeline.model.bert_numpy import bert_probabilities
from pipeline.model.checkpoint import Checkpoint, weights_sha256
from pipeline.model.choose_head import choose_head
from pipeline.model.choose_readout import Layer, choose_readout
from pipeline.model.choose_tokenizer import CASING_WHY, TokenizerOptions, casing_warnings, choose_tokenizer
from pipeline.model.read_checkpoint import read_checkpoint
from pipeline.model.tokenizer_files import vocabulary_bytes
from pipeline.model.whole_folder import whole_folder, writing
from transforms.encoder import load_encoder
from transforms.encoder_spec import (
  GRAPH_FILE,
  SPEC_FILE,
  SPIECE_FILE,
  VOCAB_FILE,
  AnyTokenizerSettings,
  BertConfig,
  EncoderSpec,
  Head,
  ModelConfig,
  Readout,
  SelfTest,
  Source,
  TensorNames,
  make_tokenizer,
  read_spec,
  vocabulary_file,
)
from transforms.errors import EncoderError, UsageError
from transforms.storage import sha256
from transforms.tokenizer import N_SPECIAL, Tokenizer

DEFAULT_MAX_SEQ_LENGTH = 256
# Tokens of the self-test's sequences; the longest the encoder takes comes on top, up to _LONGEST_CASE.
_CASE_LENGTHS = (2, 3, 8, 21, 55)
_TWICE = 8
_LONGEST_CASE = 128
# Float32 forward passes are within 1e-6 to 1e-5 of float64 ones, relative to the largest value; wrong kernels are not.
_RELATIVE_TOLERANCE = 1e-4


@dataclass(frozen=True, kw_only=True)
class FreezeOptions(TokenizerOptions):
  """What a person may decide; None is what the folder states, or the default.

  Attributes:
    pooling, combine, exclude_special_tokens: as in `Readout`.
    layers: as the user counts them, 0…L or −L…−1, or `first-last` for 1 and L.
    max_seq_length: tokens of a text, the special ones with them.
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
  tokenizer: AnyTokenizerSettings
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
  vocab = vocabulary_bytes(checkpoint.vocabulary)
  draft = _draft(checkpoint, choices, weights_sha256(variables), sha256(vocab))
  check_fingerprint(draft, options.fingerprint)
  if stands_already(target, draft, options.overwrite):
    load_encoder(str(target))  # tests itself
    say(f"{target}: unchanged, encoder {draft.fingerprint[:12]} stands there already")
    return read_spec(str(target))
  graph, tensors = checkpoint.architecture.build_graph(variables, checkpoint.config, choices.readout, choices.head)
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
    f"model: {checkpoint.architecture.name}, {config.layers} layers, hidden size {config.hidden_size}, "
    f"activation {config.activation}, "
    f"{config.vocab_size} tokens",
    *readout_lines,
    *head_lines,
    f"max-seq-length: {length} ({length_why})",
    *_memory_notes(config, length),
    casing,
    *casing_warnings(checkpoint.vocabulary, tokenizer),
    *(f"note: {note}" for note in checkpoint.notes),
  )
  return Choices(readout, length, tokenizer, lines, head)


def make_self_test(checkpoint: Checkpoint, choices: Choices, variables: dict[str, np.ndarray]) -> SelfTest:
  """Returns token sequences with the vectors, and the head's probabilities, of the float64 forward pass."""
  config, model = checkpoint.config, checkpoint.architecture
  tokenizer = make_tokenizer(checkpoint.vocabulary, choices.tokenizer, choices.max_seq_length)
  cases = make_cases(tokenizer, min(choices.max_seq_length, _LONGEST_CASE))
  if choices.readout.exclude_special_tokens:
    cases = tuple(case for case in cases if len(case) > 2)  # the others have no token that counts
  vectors = [model.vector(variables, config, case, choices.readout) for case in cases]
  rows = []
  if choices.head and isinstance(config, BertConfig):  # no other has one
    kind, fused = choices.head.kind, choices.readout.combine == "fused"
    rows = [bert_probabilities(variables, config, case, kind, fused=fused) for case in cases]
  return as_self_test(cases, vectors, rows)


def as_self_test(
  cases: tuple[tuple[int, ...], ...], vectors: Sequence[np.ndarray], probabilities: Sequence[np.ndarray] = ()
) -> SelfTest:
  """Returns cases, their vectors [W] and probabilities as a self-test, with the tolerance for vectors of that size."""
  tolerance = _RELATIVE_TOLERANCE * max(1.0, float(np.abs(vectors).max()))
  return SelfTest(cases, _rounded(vectors), tolerance, _rounded(probabilities))


def _rounded(rows: Sequence[np.ndarray]) -> tuple[tuple[float, ...], ...]:
  return tuple(tuple(float(f"{x:.9g}") for x in row) for row in rows)


def make_cases(tokenizer: Tokenizer, longest: int) -> tuple[tuple[int, ...], ...]:
  """Returns ids drawn from the whole vocabulary among special tokens, always the same; the last is the longest.

  Two have one length, so that more than that tells them apart.
  """
  generator = np.random.default_rng(0)
  lengths = sorted([*{min(length, longest) for length in (*_CASE_LENGTHS, longest)}, min(_TWICE, longest)])
  drawn = [generator.integers(tokenizer.vocab_size, size=n - N_SPECIAL).tolist() for n in lengths]
  return tuple((*tokenizer.before, *ids, *tokenizer.after) for ids in drawn)


def _choose_length(checkpoint: Checkpoint, options: FreezeOptions) -> tuple[int, str]:
  limit, asked = checkpoint.config.position_limit, options.max_seq_length
  if asked is not None:
    if asked < 3 or (limit is not None and asked > limit):
      choose = "3 or more" if limit is None else f"3 to {limit}, the positions that the model has"
      raise UsageError(f"--max-seq-length {asked}: choose {choose}")
    return asked, "asked for"
  if checkpoint.max_seq_length is not None:
    return checkpoint.max_seq_length, "stated by the folder"
  if limit is not None and limit < DEFAULT_MAX_SEQ_LENGTH:
    return limit, "the positions that the model has"
  return DEFAULT_MAX_SEQ_LENGTH, "default"


def _memory_notes(config: ModelConfig, length: int) -> Iterator[str]:
  """Says what the longest text takes where no number of positions bounds it."""
  size = config.score_bytes * config.heads * length**2
  if config.position_limit is None and size >= 1 << 30:
    yield (
      f"note: attention over {length:,} tokens takes about {size / 1e9:,.1f} GB, for each batch that is computed at "
      "once; a smaller --max-seq-length with `sorbus embed --long-texts windows` or chunks takes less"
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
  libraries = ("tensorflow", "numpy", "tokenizers", "sentencepiece")
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
  ours = {target / name for name in (GRAPH_FILE, VOCAB_FILE, SPIECE_FILE, SPEC_FILE)}
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
    (new / vocabulary_file(spec.tokenizer)).write_bytes(vocab)
    (new / SPEC_FILE).write_text(spec.to_json(), encoding="utf-8")
    error = load_encoder(str(new)).self_test_error
    assert error is not None, new
    return error
