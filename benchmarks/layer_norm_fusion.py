"""What TensorFlow's optimiser makes of the ways to write a layer normalisation: fused or not, and off by how much.

python -m benchmarks.layer_norm_fusion

Prints a line a form: the largest error against float64 NumPy, with epsilon 1e-12 on values so small that another
epsilon shows. docs/numerics.md has the table.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from collections.abc import Callable

import numpy as np

from transforms.frozen_graph import tf

B, T, H, EPSILON = 2, 7, 128, 1e-12
Form = Callable[["tf.Tensor"], "tf.Tensor"]


def moments(values_axis: object, squares_axis: object) -> Form:
  """Mean and variance over the last axis, each as it is written, then `tf.nn.batch_normalization`."""

  def form(x: "tf.Tensor") -> "tf.Tensor":
    mean = tf.reduce_mean(x, _axis(values_axis, x), keepdims=True)
    variance = tf.reduce_mean(tf.math.squared_difference(x, mean), _axis(squares_axis, x), keepdims=True)
    return tf.nn.batch_normalization(x, mean, variance, tf.zeros(H), tf.ones(H), EPSILON)

  return form


def sums(x: "tf.Tensor") -> "tf.Tensor":
  """Sums in place of means."""
  mean = tf.reduce_sum(x, 2, keepdims=True) / H
  variance = tf.reduce_sum(tf.math.squared_difference(x, mean), 2, keepdims=True) / H
  return tf.nn.batch_normalization(x, mean, variance, tf.zeros(H), tf.ones(H), EPSILON)


def by_hand(x: "tf.Tensor") -> "tf.Tensor":
  """(x - m) · rsqrt(v + ε), over axis 2."""
  mean = tf.reduce_mean(x, 2, keepdims=True)
  variance = tf.reduce_mean(tf.math.squared_difference(x, mean), 2, keepdims=True)
  return (x - mean) * tf.math.rsqrt(variance + EPSILON) * tf.ones(H) + tf.zeros(H)


FORMS: dict[str, Form] = {
  "both over 2": moments(2, 2),
  "both over [2]": moments([2], [2]),
  "both over rank - 1": moments("rank - 1", "rank - 1"),
  "values over 2, squares over -1": moments(2, -1),
  "values over -1, squares over 2": moments(-1, 2),
  "both over -1": moments(-1, -1),
  "sums over 2": sums,
  "by hand over 2": by_hand,
}


def error(form: Form) -> float:
  """Returns the largest error of a form."""
  x = (np.random.default_rng(0).normal(size=(B, T, H)) * 0.05).astype(np.float32)
  wide = x.astype(np.float64)
  centred = wide - wide.mean(-1, keepdims=True)
  expected = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + EPSILON)
  with tf.Graph().as_default(), tf.compat.v1.Session() as session:
    fed = tf.compat.v1.placeholder(tf.float32, (None, T, H))
    return float(np.abs(session.run(form(fed), {fed: x}) - expected).max())


def _axis(axis: object, x: "tf.Tensor") -> object:
  return tf.rank(x) - 1 if axis == "rank - 1" else axis


if __name__ == "__main__":
  for name, form in FORMS.items():
    print(f"{name:32} {error(form):.1e}")
