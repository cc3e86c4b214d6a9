"""`sorbus freeze GRAPH.pb`: a graph that was frozen elsewhere becomes an encoder folder."""

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from pipeline.model.adapt_graph import RAW_NODE, adapt_graph
from pipeline.model.checkpoint import check_vocabulary_size
from pipeline.model.choose_tokenizer import TokenizerOptions, casing_warnings, choose_tokenizer
from pipeline.model.foreign_graph import ForeignGraph, read_graph
from pipeline.model.freeze import (
  DEFAULT_MAX_SEQ_LENGTH,
  as_self_test,
  check_fingerprint,
  library_versions,
  make_cases,
  stands_already,
  target_folder,
  write_folder,
)
from pipeline.model.graph_ends import AskedEnds, GraphEnds, candidates, describe, embedding_rows, find_ends, listed
from pipeline.model.graph_rewriting import prune, reduce_over_last_axis
from pipeline.model.readout_numpy import pool_tokens
from pipeline.model.reference_run import Reference, run_reference
from pipeline.model.tokenizer_files import read_vocab_file, vocabulary_bytes
from transforms.casing import is_cased
from transforms.encoder import load_encoder
from transforms.encoder_spec import (
  IN_GRAPH,
  POOLINGS,
  POOLINGS_OVER_TOKENS,
  AnyTokenizerSettings,
  EncoderSpec,
  GraphConfig,
  Readout,
  SelfTest,
  Source,
  TensorNames,
  make_tokenizer,
  read_spec,
)
from transforms.errors import EncoderError, UsageError
from transforms.frozen_graph import tf
from transforms.storage import sha256
from transforms.wordpiece import TokenizerSettings

__all__ = ["AskedEnds", "GraphOptions", "choose_pooling", "freeze_graph", "is_graph"]

_POOLINGS = tuple(pooling for pooling in POOLINGS if pooling != "pooler")


@dataclass(frozen=True, kw_only=True)
class GraphOptions(TokenizerOptions):
  """What a person may decide about a graph; None is what is found in it, or the default.

  Attributes:
    vocab: the `vocab.txt` that the weights were trained with; a graph has none with it.
    asked: inputs and output.
    pooling, exclude_special_tokens: as in `Readout`, of an output [B, T, H].
    max_seq_length: tokens of a text, [CLS] and [SEP] with them.
    overwrite, fingerprint: as in `FreezeOptions`.
  """

  vocab: str | None = None
  asked: AskedEnds = field(default_factory=AskedEnds)
  pooling: str | None = None
  exclude_special_tokens: bool = False
  max_seq_length: int | None = None
  overwrite: bool = False
  fingerprint: str | None = None


def is_graph(path: str) -> bool:
  """Says whether a path is a graph's, frozen or a SavedModel, and not a checkpoint's."""
  place = Path(path)
  if place.is_dir():
    return (
      (place / "saved_model.pb").exists() and not any(place.glob("*.index")) and not (place / "config.json").exists()
    )
  return place.suffix in (".pb", ".pbtxt")


def freeze_graph(path: str, encoder_dir: str, options: GraphOptions, say: Callable[[str], None] = print) -> EncoderSpec:
  """Makes a frozen graph an encoder folder, loads it again, and runs its self-test, as `freeze` does.

  What the self-test expects comes from the graph as it was given, run with oneDNN and graph optimisation off.

  Args:
    path: a serialised GraphDef.
    encoder_dir: a new or empty folder, or one with the same encoder (then nothing is done).
    options: what a person decided.
    say: takes the lines that tell what was found and decided.

  Raises:
    EncoderError: not a graph, or one that does what no encoder does or gives other vectors when it is optimised.
    UsageError: options that do not go together, or inputs and output that cannot be told.
  """
  _check_options(path, options)
  target = target_folder(encoder_dir, options.overwrite)
  vocabulary = read_vocab_file(Path(str(options.vocab)))
  foreign = read_graph(path)
  ends = find_ends(foreign.graph, options.asked)
  settings = _choose_settings(foreign, ends, vocabulary, options)
  for line in settings.lines:
    say(line)
  definition = prune(foreign.definition, ends.output.op.name, [x.op.name for x in ends.inputs])
  tokenizer = make_tokenizer(vocabulary, settings.tokenizer, settings.max_seq_length)
  cases = make_cases(tokenizer, settings.max_seq_length)
  reference = _reference(path, definition, ends, cases)
  readout, readout_line = choose_pooling(foreign, ends, reference.trial, len(cases[1]), options)
  say(readout_line)
  if len({output.shape[-1] for output in reference.outputs}) > 1:
    raise UsageError(
      f"{path}: the width of {ends.output.op.name} changes with the text's length; give another --output"
    )
  vocab = vocabulary_bytes(vocabulary)
  config = GraphConfig(
    vocab_size=len(vocabulary),
    hidden_size=reference.trial[-1],
    inputs=tuple(tensor.op.name for tensor in ends.inputs),
    output=ends.output.op.name,
  )
  draft = _draft(foreign, config, readout, settings, sha256(vocab))
  check_fingerprint(draft, options.fingerprint)
  if stands_already(target, draft, options.overwrite):
    load_encoder(str(target))  # tests itself
    say(f"{target}: unchanged, encoder {draft.fingerprint[:12]} stands there already")
    return read_spec(str(target))
  if rewritten := reduce_over_last_axis(definition, foreign.graph):
    say(f"layer normalisation: {rewritten} means are over axis -1 now; oneDNN would mistake what they belong to")
  graph, tensors = adapt_graph(definition, ends, readout)
  spec = replace(draft, tensors=tensors, graph_sha256=sha256(graph), self_test=_self_test(cases, reference, readout))
  _check_vectors_differ(path, spec)
  has_mask = ends.input_mask is not None
  del foreign, ends, definition  # a large model is in memory often enough while it is loaded again
  gc.collect()  # a tf.Graph holds on to itself
  error = _write(path, target, spec, graph, vocab, has_mask=has_mask)
  say(f"{target}: encoder {spec.fingerprint[:12]}, {len(graph) / 1e6:.1f} MB; self-test passed, off by {error:.1e}")
  return spec


@dataclass(frozen=True)
class _Settings:
  max_seq_length: int
  tokenizer: AnyTokenizerSettings
  lines: tuple[str, ...]


def _check_options(path: str, options: GraphOptions) -> None:
  if options.vocab is None:
    raise UsageError(f"{path}: a graph has no vocabulary with it; give the vocab.txt of its weights with --vocab")
  if options.pooling == "pooler":
    raise UsageError(
      "--pooling pooler: of a graph, give the pooler's node as --output, such as --output bert/pooler/dense/Tanh"
    )
  if options.pooling not in (None, *_POOLINGS):
    raise UsageError(f"--pooling {options.pooling}: not known; choose {', '.join(_POOLINGS)}")
  if options.exclude_special_tokens and options.pooling not in (None, *POOLINGS_OVER_TOKENS):
    raise UsageError(
      f"--exclude-special-tokens does not go with --pooling {options.pooling}, whose token is a special one; "
      f"choose --pooling {', '.join(POOLINGS_OVER_TOKENS)}"
    )


def _choose_settings(
  foreign: ForeignGraph, ends: GraphEnds, vocabulary: tuple[str, ...], options: GraphOptions
) -> _Settings:
  table = embedding_rows(ends.input_ids)
  if table is not None:
    check_vocabulary_size(str(options.vocab), vocabulary, table)
  length, length_why = _choose_length(ends.fixed_length, options.max_seq_length)
  uncased = not is_cased(vocabulary)
  tokenizer, casing = choose_tokenizer(TokenizerSettings(uncased, uncased), "by the vocabulary's letters", options)
  lines = [
    f"graph: {foreign.name} ({len(foreign.definition.node)} nodes)",
    f"input ids: {describe(ends.input_ids)}",
    f"input mask: {describe(ends.input_mask) if ends.input_mask is not None else 'none'}",
    f"token types: {describe(ends.token_type_ids) + ', fed 0' if ends.token_type_ids is not None else 'none'}",
    f"output: {describe(ends.output)} ({ends.output_why})",
    f"max-seq-length: {length} ({length_why})",
    casing,
    *casing_warnings(vocabulary, tokenizer),
  ]
  if table is None:
    lines.append(f"note: found no embedding table to hold {options.vocab} to; is it the one of these weights?")
  return _Settings(length, tokenizer, tuple(lines))


def _choose_length(fixed: int | None, asked: int | None) -> tuple[int, str]:
  if fixed is not None and fixed < 3:
    raise UsageError(
      f"the graph's inputs take texts of {fixed} tokens; freeze it again with 3 or more, for [CLS], [SEP] and a token "
      "between them"
    )
  if fixed is not None and not 3 <= (asked or fixed) <= fixed:
    raise UsageError(f"--max-seq-length {asked or fixed}: choose 3 to {fixed}, the length that the graph's inputs have")
  if asked is not None and asked < 3:
    raise UsageError(f"--max-seq-length {asked}: choose 3 or more, for [CLS], [SEP] and a token between them")
  if fixed is not None:
    why = "asked for" if asked else "the graph's"
    return asked or fixed, f"{why}; each text is computed at {fixed} tokens, which the graph's inputs have"
  return asked or DEFAULT_MAX_SEQ_LENGTH, "asked for" if asked else "default"


def _reference(
  path: str, definition: "tf.compat.v1.GraphDef", ends: GraphEnds, cases: Sequence[Sequence[int]]
) -> Reference:
  """What the graph gives as it is, one text at a time."""
  try:
    reference = run_reference(adapt_graph(definition, ends, None)[0], RAW_NODE, cases)
  except EncoderError as error:
    raise _named(path, error) from error
  if reference.failure and not reference.outputs:
    raise EncoderError(f"{path}: {_plainly(reference.failure)}; freeze it again")
  if reference.failure:
    raise UsageError(
      f"--max-seq-length {len(cases[-1])}: {path} computes {reference.longest} tokens at most; choose a smaller "
      f"--max-seq-length, {reference.longest} or less ({_plainly(reference.failure)})"
    )
  if not all(np.isfinite(output).all() for output in reference.outputs):
    raise EncoderError(f"{path}: node {ends.output.op.name!r} gives NaN or infinity; did the training go wrong?")
  return reference


def choose_pooling(
  foreign: ForeignGraph, ends: GraphEnds, trial: tuple[int, ...], length: int, options: GraphOptions
) -> tuple[Readout, str]:
  """Returns how the output becomes one vector a text, and the line that says so.

  Args:
    foreign: the graph.
    ends: its inputs and output.
    trial: the shape that the output had for two texts of `length` tokens in one batch, [2, T, H] or [2, H].
    length: see there.
    options: what a person decided.

  Raises:
    UsageError: the output is neither, or there is nothing to pool.
  """
  name = ends.output.op.name
  if 0 in trial:
    raise UsageError(_not_vectors(ends.output, trial))
  if len(trial) == 3 and trial[:2] == (2, ends.fixed_length or length):
    pooling, why = options.pooling or "mean", "asked for" if options.pooling else "default"
    without = ", special tokens not counted" if options.exclude_special_tokens else ""
    readout = Readout(pooling, (), exclude_special_tokens=options.exclude_special_tokens)
    return readout, f"pooling: {pooling}{without} ({why})"
  if len(trial) != 2 or trial[0] != 2:
    raise UsageError(_not_vectors(ends.output, trial))
  if options.pooling or options.exclude_special_tokens:
    option = f"--pooling {options.pooling}" if options.pooling else "--exclude-special-tokens"
    tokens = candidates(foreign.graph, ends.input_ids, (3,))
    raise UsageError(
      f"{option}: {name} gives one vector a text, with nothing to pool; leave it out, or give an --output with a "
      f"vector a token, such as: {listed(tokens)}"
    )
  return Readout(IN_GRAPH, ()), f"pooling: in the graph, whose {name} is one vector a text"


def _not_vectors(output: "tf.Tensor", trial: tuple[int, ...]) -> str:
  reshapes = [op.outputs[0] for op in output.consumers() if op.type == "Reshape" and op.outputs[0].shape.rank == 3]
  better = f"; give --output {reshapes[0].op.name}, which is made of it" if reshapes else "; give another --output"
  return (
    f"--output {output.op.name}: gave {list(trial)} for 2 texts, which is neither a vector a text, [2, H], nor a "
    f"vector a token, [2, T, H]{better}"
  )


def _draft(
  foreign: ForeignGraph, config: GraphConfig, readout: Readout, settings: _Settings, vocab: str
) -> EncoderSpec:
  """The spec as far as it is known before the graph is drawn: all that the fingerprint is over."""
  return EncoderSpec(
    fingerprint="",
    source=Source("graph", Path(foreign.name).name),
    graph=config,
    layers=(),
    pooling=readout.pooling,
    exclude_special_tokens=readout.exclude_special_tokens,
    max_seq_length=settings.max_seq_length,
    tokenizer=settings.tokenizer,
    tensors=TensorNames("", "", ""),
    weights_sha256=foreign.sha256,
    vocab_sha256=vocab,
    graph_sha256="",
    self_test=SelfTest((), (), 0.0),
    versions=library_versions(),
  ).with_fingerprint()


def _self_test(cases: tuple[tuple[int, ...], ...], reference: Reference, readout: Readout) -> SelfTest:
  """Pooled in float64 NumPy; a fixed T is padded at the end of a text, where nothing counts."""
  if readout.pooling == IN_GRAPH:
    return as_self_test(cases, [output.astype(np.float64) for output in reference.outputs])
  pairs = [(case, output) for case, output in zip(cases, reference.outputs, strict=True)]
  if readout.exclude_special_tokens:
    pairs = [(case, output) for case, output in pairs if len(case) > 2]  # the others have no token that counts
  vectors = [pool_tokens(output[: len(case)].astype(np.float64), readout) for case, output in pairs]
  return as_self_test(tuple(case for case, _ in pairs), vectors)


def _check_vectors_differ(path: str, spec: EncoderSpec) -> None:
  """Raises UsageError if texts of one length have vectors so alike that they cannot say what stands in them."""
  test = spec.self_test
  cases = list(zip(test.cases, np.array(test.vectors), strict=True))
  for (case, vector), (other, same) in pairwise(cases):
    if len(case) == len(other) and case != other and np.abs(vector - same).max() <= test.tolerance:
      raise UsageError(
        f"{path}: texts of {len(case)} tokens have the same vector, within {test.tolerance:.1g}, whatever stands in "
        "them; give another --output or --pooling"
      )


def _write(path: str, target: Path, spec: EncoderSpec, graph: bytes, vocab: bytes, *, has_mask: bool) -> float:
  """As `write_folder`; says what it means when such a graph does not pass."""
  try:
    return write_folder(target, spec, graph, vocab)
  except EncoderError as error:
    if "self-test off" not in str(error):
      raise
    if has_mask:
      raise EncoderError(
        f"{path}: optimised, or beside other texts in a batch, it gives other vectors than plainly and alone; {error}"
      ) from error
    raise EncoderError(
      f"{path}: has no input for a mask, and its vectors change when a text is padded beside a longer one; "
      "give the mask's node with --input-mask, or freeze it again with a mask"
    ) from error


def _plainly(failure: str) -> str:
  """A failure without the remedy and the prefix that are not for the graph as its owner knows it."""
  return failure.removeprefix("graph: ").rpartition(";")[0].replace("node 'graph/", "node '")


def _named(path: str, error: EncoderError) -> EncoderError:
  return EncoderError(f"{path}: {str(error).removeprefix('graph: ')}")
