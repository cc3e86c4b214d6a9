"""What an encoder folder says of itself, and whether that is so: its files as frozen, its vectors as tested."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pipeline.model.architecture import architecture_of
from pipeline.model.describe_tokens import casing_warnings, describe_sample, describe_vocabulary
from transforms.encoder import load_encoder
from transforms.encoder_files import check_sha256, read_bytes
from transforms.encoder_spec import GRAPH_FILE, VOCAB_FILE, EncoderSpec, read_spec, read_vocabulary, vocabulary_file
from transforms.errors import EncoderError
from transforms.json_values import to_json_value
from transforms.text_sample import Sample

_SETTINGS = (
  *("fingerprint", "source", "config", "graph", "readout", "vector_size", "head", "max_seq_length", "tokenizer"),
  *("for_cosine", "tensors", "precision", "versions"),
)


def describe_encoder(encoder_dir: str, sample: Sample | None = None) -> dict[str, Any]:
  """Returns the description of an encoder folder as plain values; what cannot be known is None.

  It is loaded, and its self-test run.

  Args:
    encoder_dir: a path or any fsspec URL.
    sample: texts in which to count unknown tokens and truncated texts.
  """
  problems: list[str] = []
  spec = None
  with _kept(problems):
    spec = read_spec(encoder_dir)
  vocabulary = vocabulary_file(spec.tokenizer) if spec else VOCAB_FILE
  files = {
    name: _file(encoder_dir, name, getattr(spec, field, None), problems)
    for name, field in ((GRAPH_FILE, "graph_sha256"), (vocabulary, "vocab_sha256"))
  }
  return {
    "kind": "encoder",
    "path": encoder_dir,
    "architecture": architecture_of(spec.config).name if spec and spec.config else None,
    **_settings(spec),
    "files": files,
    **_tokens(encoder_dir, spec, sample, problems),
    "self_test": _self_test(encoder_dir, spec, problems) if spec and not problems else None,
    "can_be_used": not problems,
    "problems": problems,
  }


@contextmanager
def _kept(problems: list[str]) -> Iterator[None]:
  """Keeps what goes wrong as a problem, each once."""
  try:
    yield
  except EncoderError as error:
    if str(error) not in problems:
      problems.append(str(error))


def _settings(spec: EncoderSpec | None) -> dict[str, Any]:
  if spec is None:
    return dict.fromkeys(_SETTINGS)
  return {name: to_json_value(getattr(spec, name)) for name in _SETTINGS}


def _file(encoder_dir: str, name: str, sha256: str | None, problems: list[str]) -> dict[str, Any] | None:
  """Size and sha256 of a file, and whether it is the one that was frozen."""
  with _kept(problems):
    data = read_bytes(encoder_dir, name)
    if sha256:
      with _kept(problems):
        check_sha256(data, sha256, f"{encoder_dir}/{name}")
    found = hashlib.sha256(data).hexdigest()
    return {"bytes": len(data), "sha256": found, "as_frozen": None if sha256 is None else found == sha256}
  return None


def _tokens(encoder_dir: str, spec: EncoderSpec | None, sample: Sample | None, problems: list[str]) -> dict[str, Any]:
  vocabulary = None
  with _kept(problems):
    vocabulary = read_vocabulary(encoder_dir, spec) if spec else None
  if spec is None or vocabulary is None:
    return {"vocabulary": None, "sample": None, "warnings": []}
  return {
    "vocabulary": describe_vocabulary(vocabulary, [spec.tokenizer]),
    "sample": describe_sample(sample, vocabulary, [spec.tokenizer], spec.max_seq_length) if sample else None,
    "warnings": casing_warnings(vocabulary, spec.tokenizer),
  }


def _self_test(encoder_dir: str, spec: EncoderSpec, problems: list[str]) -> dict[str, Any] | None:
  with _kept(problems):
    error = load_encoder(encoder_dir).self_test_error
    return {"cases": len(spec.self_test.cases), "error": error, "tolerance": spec.self_test.tolerance}
  return None
