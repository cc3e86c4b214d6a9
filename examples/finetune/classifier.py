"""A BERT with pooler and head while it is trained: our own graph over variables, and AdamW."""

from collections.abc import Callable
from itertools import count

import numpy as np
from labelled_texts import Texts

from pipeline.model.bert_graph import Bert
from pipeline.model.bert_variables import HEAD_BIAS, HEAD_WEIGHTS, LAYER_LOGIT, POOLER, mix_shapes, needed_shapes
from pipeline.model.checkpoint import Checkpoint
from pipeline.model.fold_weights import FoldedWeights
from transforms.encoder_spec import BertConfig, Readout
from transforms.frozen_graph import tf

# As BERT's `optimization.py` has them: Adam without bias correction, decay apart from the gradient.
BETA_1, BETA_2, EPSILON, DECAY, CLIP_NORM = 0.9, 0.999, 1e-6, 0.01, 1.0
WITHOUT_DECAY = ("bias", "LayerNorm")
INITIAL_DEVIATION = 0.02

Drop = Callable[["tf.Tensor"], "tf.Tensor"]


class Classifier:
  """A BERT with pooler and head whose weights are variables, under Google's names, and AdamW's slots for them."""

  def __init__(
    self,
    values: dict[str, np.ndarray],
    config: BertConfig,
    head: str,
    fused: bool,
    frozen: bool = False,
    head_rate: float = 1.0,
  ):
    """Takes all weights; what stands above the blocks learns `head_rate` times as fast, or alone (`frozen`)."""
    self.config, self.head, self.head_rate = config, head, head_rate
    layers = tuple(range(1, config.layers + 1))
    self.readout = Readout("pooler", layers, "fused") if fused else Readout("pooler", layers[-1:])
    self.variables = {name: tf.Variable(value) for name, value in values.items()}
    self.trained = [name for name in values if stands_above(name) or not frozen]
    self.slots = {f"{name}/adam_{m}": tf.Variable(np.zeros_like(values[name])) for name in self.trained for m in "mv"}
    tokens = tf.TensorSpec([None, None], tf.int32)
    self.predict_batch = _graph(lambda *batch: self._activate(self._logits(*batch)), [tokens, tokens])
    floats, number = tf.TensorSpec([None, None], tf.float32), tf.TensorSpec([], tf.float32)
    self.step = _graph(self._step, [tokens, tokens, floats, number, number, tf.TensorSpec([2], tf.int32)])

  def predict(self, texts: Texts) -> np.ndarray:
    """Returns probabilities, float32 [N, n_labels]."""
    return over_batches(self.predict_batch, texts)

  def mix(self, texts: Texts) -> np.ndarray:
    """Returns how much of each block is in a text's [CLS], float32 [N, L]: what the mix of layers has learned."""

    def of_batch(*batch: "tf.Tensor") -> "tf.Tensor":
      bert, v = self._bert(*batch), self.variables
      dense = [f"{LAYER_LOGIT}{i - 1}" for i in self.readout.layers]
      firsts = [bert.first(i) for i in self.readout.layers]
      logits = [x @ v[f"{name}/kernel"] + v[f"{name}/bias"] for x, name in zip(firsts, dense, strict=True)]
      return tf.nn.softmax(tf.concat(logits, 1))

    return over_batches(_graph(of_batch, self.predict_batch.input_signature), texts)

  def _bert(self, input_ids: "tf.Tensor", input_mask: "tf.Tensor", drop: Drop = lambda x: x) -> Bert:
    depth = self.config.layers
    weights = FoldedWeights(self.variables, self.config, depth, tf.concat)
    return Bert(weights, self.config, input_ids, input_mask, depth, drop)

  def _logits(self, input_ids: "tf.Tensor", input_mask: "tf.Tensor", drop: Drop = lambda x: x) -> "tf.Tensor":
    bert = self._bert(input_ids, input_mask, drop)
    return bert.logits(bert.pooler(bert.head_input(self.readout)))

  def _activate(self, logits: "tf.Tensor") -> "tf.Tensor":
    return tf.sigmoid(logits) if self.head == "sigmoid" else tf.nn.softmax(logits)

  def _loss(self, targets: "tf.Tensor", logits: "tf.Tensor") -> "tf.Tensor":
    if self.head == "sigmoid":
      return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(targets, logits))  # over texts and labels
    return tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(targets, logits))

  def _step(self, input_ids, input_mask, targets, rate, dropout, seed):  # type: ignore[no-untyped-def]
    """One batch: its loss, after which every trained variable has moved."""
    variables = [self.variables[name] for name in self.trained]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
      tape.watch(variables)
      loss = self._loss(targets, self._logits(input_ids, input_mask, dropper(dropout, seed)))
    gradients, _ = tf.clip_by_global_norm(tape.gradient(loss, variables), CLIP_NORM)
    for name, variable, gradient in zip(self.trained, variables, gradients, strict=True):
      m, v = self.slots[f"{name}/adam_m"], self.slots[f"{name}/adam_v"]
      m.assign(BETA_1 * m + (1 - BETA_1) * gradient)
      v.assign(BETA_2 * v + (1 - BETA_2) * tf.square(gradient))
      decay = 0.0 if any(part in name for part in WITHOUT_DECAY) else DECAY
      own_rate = rate * (self.head_rate if stands_above(name) else 1.0)
      variable.assign_sub(own_rate * (m / (tf.sqrt(v) + EPSILON) + decay * variable))
    return loss


def stands_above(name: str) -> bool:
  """Says whether a variable is the pooler's, the mix's or the head's."""
  return not name.startswith("bert/") or name.startswith(POOLER)


def _graph(function: Callable, signature: "list[tf.TensorSpec]") -> "tf.types.experimental.PolymorphicFunction":
  return tf.function(function, signature, autograph=False)  # nothing here branches on a tensor


def over_batches(function: "tf.types.experimental.PolymorphicFunction", texts: Texts) -> np.ndarray:
  """Returns rows [N, …] of a function of ids and mask, in the order of the texts."""
  batches = texts.batches()
  rows = np.concatenate([function(*texts.batch(numbers)).numpy() for numbers in batches])
  return rows[np.argsort(np.concatenate(batches))]


def dropper(rate: "tf.Tensor", seed: "tf.Tensor") -> Drop:
  """Returns dropout whose chance is a function of the seed and of how often it was called: nothing to keep of it."""
  calls = count()

  def drop(x: "tf.Tensor") -> "tf.Tensor":
    one = tf.random.experimental.stateless_fold_in(seed, next(calls))
    kept = tf.random.stateless_uniform(tf.shape(x), one) >= rate
    return tf.where(kept, x / (1.0 - rate), 0.0)

  return drop


def initial_values(checkpoint: Checkpoint, n_labels: int, fused: bool, seed: int) -> dict[str, np.ndarray]:
  """Returns the checkpoint's weights, and of the new ones: a pooler if it has none, a mix that averages, and a head."""
  config, generator = checkpoint.config, np.random.default_rng(seed)
  shapes = needed_shapes(config, config.layers, pooler=True) | (mix_shapes(config) if fused else {})
  shapes |= {HEAD_WEIGHTS: (n_labels, config.hidden_size), HEAD_BIAS: (n_labels,)}
  values = {}
  for name, shape in shapes.items():
    is_random = name in (f"{POOLER}/kernel", HEAD_WEIGHTS)
    new = generator.normal(0, INITIAL_DEVIATION, shape) if is_random else np.zeros(shape)
    is_known = name.startswith("bert/") and name in checkpoint.variables
    values[name] = checkpoint.variables[name] if is_known else new.astype(np.float32)
  return values
