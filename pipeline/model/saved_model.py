"""An encoder as a SavedModel for TensorFlow Serving: the frozen graph, and behind it the whitening of a run if asked.

```
OUT/
  saved_model.pb   the graph with its weights as constants, and the signature `serving_default`
  variables/       empty: TensorFlow makes it
  assets.extra/    for clients, servers pass it by: the vocabulary and encoder.json to tokenise alike; serving.json
```

It is a graph and not a Python function that was traced: what runs is encoder.pb node for node, which a server's
optimiser then meets as our session did when the self-test passed.
"""

import contextlib
import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.model.whole_folder import whole_folder, writing
from transforms.batching import pad_batch
from transforms.encoder import Encoder, load_encoder
from transforms.encoder_files import read_bytes
from transforms.encoder_spec import (
  GRAPH_FILE,
  SPEC_FILE,
  SPIECE_FILE,
  VOCAB_FILE,
  EncoderSpec,
  read_spec,
  vocabulary_file,
)
from transforms.errors import EncoderError, UsageError
from transforms.frozen_graph import MAX_GRAPH_BYTES, session_config, tf
from transforms.whitening import Whitening, normalise

# Raise it when a key of serving.json changes its meaning.
FORMAT_VERSION = 1
SIGNATURE = "serving_default"
_EXTRA, _SERVING_FILE, _MODEL_FILE = "assets.extra", "serving.json", "saved_model.pb"
_OURS = {_MODEL_FILE, "variables", _EXTRA} | {
  f"{_EXTRA}/{name}" for name in (VOCAB_FILE, SPIECE_FILE, SPEC_FILE, _SERVING_FILE)
}
# Of the largest value, at least 1. It is the same graph on the same machine: it is off by rounding or it is wrong.
_TOLERANCE = 1e-5
# Room for what is not weights: the whitening's nodes, the signature and the list of operations.
_OVERHEAD = 1 << 20


@dataclass(frozen=True)
class _Case:
  """A batch, int32 [B, T] twice, and by name what the signature has to give for it, float32 [B, …]."""

  input_ids: np.ndarray
  input_mask: np.ndarray
  outputs: dict[str, np.ndarray]


def is_served_encoder(path: Path) -> bool:
  """Says whether a folder is a SavedModel that was written here."""
  return (path / _EXTRA / _SERVING_FILE).is_file()


def write_saved_model(
  out: str,
  encoder_dir: str,
  whitening: Whitening | None = None,
  *,
  overwrite: bool = False,
  say: Callable[[str], None] = print,
) -> float:
  """Writes a SavedModel of an encoder, loads it again and holds it to the encoder; returns the largest error found.

  Its signature takes `input_ids` and `input_mask`, int32 [B, T], and gives `vector` and, where the encoder has a head,
  `probabilities`, float32 [B, n_labels]. `vector` is the raw one, float32 [B, W], or with a whitening the one that is
  published, float32 [B, K], reduced and of length 1; a row whose vector has no direction is zeros, where
  `sorbus embed` rejects the document.

  Nothing half-written remains: the folder appears whole, and only when the numbers are right.

  Args:
    out: a folder that is new or empty.
    encoder_dir: what `sorbus freeze` wrote.
    whitening: of a run of this encoder.
    overwrite: replace another SavedModel of ours in `out`, if nothing else is there.
    say: takes the line that tells what was written.

  Raises:
    UsageError: `out` holds something else, or the whitening is not for this encoder.
    EncoderError: the encoder is not sound, does not fit a SavedModel, gives other vectors from there, or `out` cannot
      be written.
  """
  target = check_target(out, encoder_dir, overwrite)
  spec = read_spec(encoder_dir)
  if whitening is not None:
    spec = _as_whitened(whitening, spec, encoder_dir)
  cases = _expect(encoder_dir, spec, whitening)
  with whole_folder(target, tf.errors.OpError) as new:
    _save(new, read_bytes(encoder_dir, GRAPH_FILE), spec, whitening)
    _add_extra(new / _EXTRA, encoder_dir, spec, whitening, cases[-1])
    error = _check(new, cases, spec.precision)
    size = (new / _MODEL_FILE).stat().st_size
  say(f"{out}: SavedModel, {size / 1e6:.1f} MB; {_describe(spec, whitening)}; loaded again, off by {error:.1e}")
  if spec.precision != "float32":
    say(f"note: the run is in {spec.precision}, as TensorFlow Serving computes with --mixed_precision={spec.precision}")
  if not target.name.isdigit():
    say(f"note: TensorFlow Serving wants a number as the folder's name, such as {out.rstrip('/')}/1")
  return error


def check_target(out: str, encoder_dir: str, overwrite: bool = False) -> Path:
  """Returns the folder to write, if a SavedModel may be put there.

  Raises:
    UsageError: it is not local, not apart from the encoder's folder, or holds something.
    EncoderError: it cannot be written.
  """
  if "://" in out:
    raise UsageError(f"--saved-model {out}: give a local folder, then copy that")
  target, encoder = Path(out).resolve(), Path(encoder_dir).resolve()
  if target.is_relative_to(encoder) or encoder.is_relative_to(target):
    raise UsageError(f"--saved-model {out}: is not apart from the encoder's folder {encoder_dir}; give another")
  with writing(target):
    if target.exists() and not target.is_dir():
      raise UsageError(f"--saved-model {out}: is a file; give a folder that is new or empty")
    if target.is_dir() and any(target.iterdir()):
      _check_content(target, out, overwrite)
    parent = next(path for path in target.parents if path.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
      raise EncoderError(f"--saved-model {out}: {parent} cannot be written; give a folder where you may write")
  return target


def _check_content(target: Path, out: str, overwrite: bool) -> None:
  """Raises UsageError for what would be lost: clients' warm-up requests, for one, are put into assets.extra by hand."""
  if not overwrite:
    raise UsageError(f"--saved-model {out}: holds something already; give a new folder, or --overwrite")
  found = (path.relative_to(target).as_posix() for path in target.rglob("*"))
  if other := next((name for name in found if name not in _OURS), None):
    raise UsageError(
      f"--saved-model {out}: holds {other}, which Sorbus did not write and which would be lost; give another folder"
    )
  if not (target / _MODEL_FILE).is_file():
    raise UsageError(f"--saved-model {out}: holds something that is no SavedModel; give a folder that is new or empty")


def _as_whitened(whitening: Whitening, spec: EncoderSpec, encoder_dir: str) -> EncoderSpec:
  """Returns the encoder in the precision whose vectors the whitening was fitted on.

  Raises:
    UsageError: they were another encoder's, or it cannot be for this one's.
  """
  fingerprint = whitening.encoder_fingerprint or spec.fingerprint  # a file that is not ours does not say
  if (found := spec.variants().get(fingerprint)) is None:
    raise UsageError(
      f"--whitening: fitted on vectors of encoder {whitening.encoder_fingerprint[:16]}, {encoder_dir} is encoder "
      f"{spec.fingerprint[:16]}; take a run of this encoder, with --long-texts truncate or chunks"
    )
  if whitening.hidden_size != spec.vector_size:
    raise UsageError(
      f"--whitening: for vectors of width {whitening.hidden_size}, the encoder's have {spec.vector_size}; "
      "take a run of this encoder"
    )
  return found


def _expect(encoder_dir: str, spec: EncoderSpec, whitening: Whitening | None) -> list[_Case]:
  """Returns the self-test's sequences, each alone and at last all in one batch, with what the encoder gives for them.

  The encoder is let go with it: a large model is in memory often enough while it is written.
  """
  encoder = load_encoder(encoder_dir, precision=spec.precision)
  every = range(len(encoder.spec.self_test.cases))
  return [_expect_batch(encoder, whitening, rows) for rows in (*([i] for i in every), every)]


def _expect_batch(encoder: Encoder, whitening: Whitening | None, rows: Sequence[int]) -> _Case:
  sequences = [encoder.spec.self_test.cases[i] for i in rows]
  offsets = np.cumsum([0, *map(len, sequences)])
  batch = pad_batch(np.concatenate(sequences), offsets, np.arange(len(sequences)))
  vectors, probabilities = encoder.encode_and_predict(*batch)
  if whitening is not None:
    unit, usable = normalise(whitening.reduce(vectors))
    vectors = np.zeros((len(rows), whitening.n_components), np.float32)
    vectors[usable] = unit
  outputs = {"vector": vectors} | ({"probabilities": probabilities} if encoder.spec.tensors.probabilities else {})
  return _Case(*batch, outputs)


def _save(folder: Path, graph: bytes, spec: EncoderSpec, whitening: Whitening | None) -> None:
  """Writes `saved_model.pb`; raises EncoderError if that would be larger than Protocol Buffers can hold."""
  size = len(graph) + (whitening.mean.nbytes + whitening.kernel.nbytes if whitening else 0)
  if size + _OVERHEAD > MAX_GRAPH_BYTES:
    raise EncoderError(f"{size / 1e9:.1f} GB do not fit a SavedModel of 2 GB; choose a smaller model")
  config = tf.compat.v1.ConfigProto(device_count={"GPU": 0})  # it runs nothing, and would take a GPU's whole memory
  with tf.Graph().as_default() as imported, tf.compat.v1.Session(config=config) as session:
    tf.import_graph_def(_with_kept(graph, (spec.tensors.output, spec.tensors.probabilities)), name="")
    inputs = {name: _tensor(imported, getattr(spec.tensors, name)) for name in ("input_ids", "input_mask")}
    vectors = _tensor(imported, spec.tensors.output)  # [B, W]
    outputs = {"vector": vectors if whitening is None else _whiten(vectors, whitening)}
    if spec.tensors.probabilities:
      outputs["probabilities"] = _tensor(imported, spec.tensors.probabilities)  # [B, n_labels]
    signature = tf.compat.v1.saved_model.build_signature_def(
      _tensor_infos(inputs), _tensor_infos(outputs), tf.saved_model.PREDICT_METHOD_NAME
    )
    builder = tf.compat.v1.saved_model.Builder(str(folder))
    builder.add_meta_graph_and_variables(session, [tf.saved_model.SERVING], {SIGNATURE: signature}, clear_devices=True)
    builder.save()


def _with_kept(graph: bytes, outputs: "Sequence[str | None]") -> "tf.compat.v1.GraphDef":
  """Returns the graph with some nodes marked to be computed as they stand, as what a session fetches is.

  Behind the whitening nobody fetches them: TensorFlow would fuse the pooler's tanh into the product before it, and in
  bfloat16 round the vector once more, unlike those that the whitening was fitted on.
  """
  definition = tf.compat.v1.GraphDef.FromString(graph)
  for node in definition.node:
    if node.name in outputs:
      node.attr["_grappler_do_not_remove"].b = True
  return definition


def _whiten(vectors: "tf.Tensor", whitening: Whitening) -> "tf.Tensor":
  """float32 [B, W] → float32 [B, K], as `Whitening.reduce` and `normalise` do; zeros where there is no direction."""
  with tf.name_scope("whitening"):
    mean, kernel = (tf.constant(getattr(whitening, name), tf.float64, name=name) for name in ("mean", "kernel"))
    reduced = tf.matmul(tf.cast(vectors, tf.float64) - mean, kernel)  # float64 [B, K]
    norms = tf.norm(reduced, axis=-1, keepdims=True)  # [B, 1]
    usable = tf.math.is_finite(norms) & (norms > 0)
    # Selected, not multiplied by 0, which would leave a NaN standing.
    unit = tf.where(usable, reduced / norms, tf.zeros_like(reduced))
    return tf.cast(unit, tf.float32, name="vector")


def _tensor(graph: "tf.Graph", node: str) -> "tf.Tensor":
  return graph.get_tensor_by_name(f"{node}:0")


def _tensor_infos(tensors: "dict[str, tf.Tensor]") -> "dict[str, tf.compat.v1.TensorInfo]":
  # Not build_tensor_info, which does the same and says on stderr that it is deprecated.
  return {
    key: tf.compat.v1.TensorInfo(
      name=tensor.name, dtype=tensor.dtype.as_datatype_enum, tensor_shape=tensor.shape.as_proto()
    )
    for key, tensor in tensors.items()
  }


def _add_extra(folder: Path, encoder_dir: str, spec: EncoderSpec, whitening: Whitening | None, case: _Case) -> None:
  """Writes what a client needs: to tokenise alike, to know which vectors these are, and to hold a server to them."""
  folder.mkdir()
  for name in (vocabulary_file(spec.tokenizer), SPEC_FILE):
    (folder / name).write_bytes(read_bytes(encoder_dir, name))
  serving = {
    "format_version": FORMAT_VERSION,
    "encoder_fingerprint": spec.fingerprint,
    "whitening_fingerprint": whitening.fingerprint if whitening else None,
    "inputs": {"input_ids": case.input_ids.tolist(), "input_mask": case.input_mask.tolist()},
    "outputs": {key: [[float(f"{x:.9g}") for x in row] for row in rows] for key, rows in case.outputs.items()},
  }
  (folder / _SERVING_FILE).write_text(json.dumps(serving) + "\n", encoding="utf-8")


def _check(folder: Path, cases: Sequence[_Case], precision: str) -> float:
  """Loads the SavedModel and returns its largest error; raises EncoderError if that is no rounding.

  In a session, as TensorFlow Serving does. `tf.saved_model.load` makes a function of it, which is optimised in another
  way and differs in the last bits of a float32; a whitening of small variances would blow these up, and a limit that
  lets them through would let more through.
  """
  config = session_config(precision, gpu_options=tf.compat.v1.GPUOptions(allow_growth=True))
  try:
    with tf.Graph().as_default() as graph, tf.compat.v1.Session(graph=graph, config=config) as session:
      with _without_warnings():  # that the one loader there is for sessions is of TensorFlow 1
        meta_graph = tf.compat.v1.saved_model.load(session, [tf.saved_model.SERVING], str(folder))
      return max(_largest_error(session, meta_graph.signature_def[SIGNATURE], case) for case in cases)
  except tf.errors.OpError as error:
    why = " ".join(str(error).split())[:200]
    raise EncoderError(f"--saved-model: cannot be loaded again and run ({why}), so nothing was written") from error


def _largest_error(session: "tf.compat.v1.Session", signature: Any, case: _Case) -> float:
  feed = {signature.inputs[key].name: getattr(case, key) for key in ("input_ids", "input_mask")}
  found = session.run({key: info.name for key, info in signature.outputs.items()}, feed)
  assert found.keys() == case.outputs.keys(), (found.keys(), case.outputs.keys())
  largest = 0.0
  for key, wanted in case.outputs.items():
    error = float(np.abs(found[key] - wanted).max())
    if not error <= _TOLERANCE * max(1.0, float(np.abs(wanted).max())):  # so that NaN fails
      raise EncoderError(
        f"--saved-model: {key} is off by {error:.3g} when it is loaded again, so nothing was written; "
        "try TF_ENABLE_ONEDNN_OPTS=0, or another TensorFlow"
      )
    largest = max(largest, error)
  return largest


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
  logger = tf.get_logger()
  level = logger.level
  logger.setLevel(logging.ERROR)
  try:
    yield
  finally:
    logger.setLevel(level)


def _describe(spec: EncoderSpec, whitening: Whitening | None) -> str:
  width = spec.vector_size if whitening is None else whitening.n_components
  what = "raw" if whitening is None else f"whitened by {whitening.fingerprint[:12]}, length 1"
  head = f" and probabilities (float32 [B, {len(spec.labels)}])" if spec.tensors.probabilities else ""
  return (
    f"{SIGNATURE} takes input_ids and input_mask (int32 [B, T], T at most {spec.max_seq_length}), gives vector "
    f"(float32 [B, {width}], {what}){head}"
  )
