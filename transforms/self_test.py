"""What an encoder's self-test lets through, in each precision: pure judgement of numbers against those of the spec.

float32 is held to an absolute error: a pass is within 1e-6 of a float64 one, or something is wrong. bfloat16 keeps 8
bits, so that an error says little by its size: it is held to the direction of each vector, and to the spread of all of
them, for an encoder whose vectors all point much the same way would pass by direction with a graph that is wrong.
"""

from collections.abc import Sequence

import numpy as np

from transforms.encoder_spec import EncoderSpec
from transforms.errors import EncoderError

# By precision: (absolute, of the largest probability). Ten thousand labels have probabilities of 1e-4 each, so that an
# error is held to the largest too.
_PROBABILITY_TOLERANCES = {"float32": (1e-4, 1e-2), "bfloat16": (0.1, 0.25)}
# What bfloat16 is let through, as 1 - cosine: a cosine of 0.999.
BFLOAT16_TOLERANCE = 1e-3
# The largest error in bfloat16, of the distance at which the self-test's own vectors lie from their mean: one that is
# nearer than this to its own text is not taken for another.
_BFLOAT16_SPREAD = 0.2
# 1 - cosine was 3e-6 and more in bfloat16, and 5e-13 at the most where float32 was computed in its place.
_FLOAT32_ANGLE = 1e-9
# What to try where vectors are off. Without oneDNN there is no bfloat16: no remedy for that.
_REMEDIES = {
  "float32": "TF_ENABLE_ONEDNN_OPTS=0, or another TensorFlow",
  "bfloat16": "another TensorFlow, or --precision float32",
}
_BUT = ": this machine computes others than those it was frozen with; try "


class SelfTestError(EncoderError):
  """An encoder that computes, but not the vectors that it should give."""

  @property
  def finding(self) -> str:
    """What was found, without the remedy."""
    return str(self).partition(_BUT)[0]


def tolerance(spec: EncoderSpec) -> float:
  """Returns the largest `self_test_error` that is let through: absolute in float32, 1 - cosine in bfloat16."""
  return spec.self_test.tolerance if spec.precision == "float32" else BFLOAT16_TOLERANCE


def is_float32_in_fact(spec: EncoderSpec, error: float) -> bool:
  """Says whether what is called bfloat16 was computed in float32, by the error that `check_vectors` found.

  TensorFlow does so without a word: where oneDNN is off, on a GPU, or on processors that are too old.
  """
  return spec.precision == "bfloat16" and error < _FLOAT32_ANGLE


def check_vectors(spec: EncoderSpec, cases: Sequence[int], found: np.ndarray) -> float:
  """Returns the error of some cases' vectors, in the unit of `tolerance`.

  Args:
    spec: the encoder's.
    cases: indices of the self-test's cases.
    found: what the encoder gave for them, float32 [B, W].

  Raises:
    SelfTestError: it is more than is let through, or not a number.
  """
  wanted = _expected(spec, "vectors", cases, found, spec.self_test.vectors)
  if spec.precision == "float32":
    return _check(spec, float(np.abs(found - wanted).max()), tolerance(spec), "in vectors")
  everything = np.array(spec.self_test.vectors)
  spread = float(np.sqrt(((everything - everything.mean(axis=0)) ** 2).sum(axis=1).mean())) or 1.0
  distance = float(np.linalg.norm(found - wanted, axis=1).max())
  _check(spec, distance / spread, _BFLOAT16_SPREAD, "of the distance between vectors")
  return _check(spec, _largest_angle(found.astype(np.float64), wanted), tolerance(spec), "in 1 - cosine")


def check_probabilities(spec: EncoderSpec, cases: Sequence[int], found: np.ndarray) -> None:
  """Raises SelfTestError if the head's probabilities, float32 [B, n_labels], are off; see `check_vectors`."""
  wanted = _expected(spec, "probabilities", cases, found, spec.self_test.probabilities)
  absolute, relative = _PROBABILITY_TOLERANCES[spec.precision]
  allowed = float(np.clip(relative * np.max(wanted), 1e-9, absolute))
  _check(spec, float(np.abs(found - wanted).max()), allowed, "in probabilities")


def _largest_angle(found: np.ndarray, wanted: np.ndarray) -> float:
  """Returns the largest 1 - cosine of rows; a row of zeros fails unless zeros are wanted."""
  lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(wanted, axis=1)
  same = (found == wanted).all(axis=1)
  with np.errstate(invalid="ignore", divide="ignore"):
    return float(np.where(same, 0.0, 1 - (found * wanted).sum(axis=1) / lengths).max())


def _expected(
  spec: EncoderSpec, what: str, cases: Sequence[int], found: np.ndarray, rows: Sequence[Sequence[float]]
) -> np.ndarray:
  wanted = np.array([rows[i] for i in cases])
  if found.shape != wanted.shape:
    raise SelfTestError(f"{_name(spec)}: gives {what} {found.shape}, not {wanted.shape}")
  return wanted


def _check(spec: EncoderSpec, error: float, allowed: float, where: str) -> float:
  if not error <= allowed:  # so that NaN fails
    found = f"{_name(spec)}: self-test off by {error:.3g} {where}, more than {allowed:.3g}"
    raise SelfTestError(f"{found}{_BUT}{_REMEDIES[spec.precision]}")
  return error


def _name(spec: EncoderSpec) -> str:
  return f"encoder {spec.fingerprint[:12]}"
