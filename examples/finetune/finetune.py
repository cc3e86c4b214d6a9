"""Fine-tune a BERT on labelled texts, into a checkpoint that `sorbus freeze --head` takes. README.md says how.

What is read is in labelled_texts.py, what is trained in classifier.py, what is written in training_files.py.
"""

import argparse
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from classifier import Classifier, initial_values
from labelled_texts import FORM, Texts, encode_rows, labels_of, measure, read_rows, split_rows
from rich.console import Console
from rich.progress import Progress
from training_files import LABELS, METRICS, PREDICTED, TrainingFiles

from pipeline.model.checkpoint import Checkpoint, weights_sha256
from pipeline.model.choose_head import read_labels
from pipeline.model.read_checkpoint import read_checkpoint
from transforms.encoder_spec import BertConfig
from transforms.errors import INTERRUPTED, SorbusError, UsageError
from transforms.frozen_graph import tf
from transforms.json_values import fingerprint
from transforms.wordpiece import Wordpiece

# What decides the weights besides the texts and the checkpoint.
SETTINGS = (
  *("head", "combine", "frozen", "epochs", "learning_rate", "head_rate", "warm_up"),
  *("batch_size", "max_seq_length", "dropout", "seed"),
)


def learning_rate(step: int, total: int, options: argparse.Namespace) -> float:
  """Rises linearly over the first share of all steps, and then falls linearly to zero."""
  rising = max(1, round(options.warm_up * total))
  return options.learning_rate * min((step + 1) / rising, (total - step) / max(1, total - rising))


def run_epoch(
  classifier: Classifier, texts: Texts, epoch: int, options: argparse.Namespace, advance: Callable[[], None]
) -> float:
  """Trains with every text once and returns the mean loss; order and dropout are functions of seed and epoch alone."""
  batches = texts.shuffled_batches(options.batch_size, np.random.default_rng([options.seed, epoch]))
  losses = []
  for step, rows in enumerate(batches, epoch * len(batches)):
    rate = learning_rate(step, options.epochs * len(batches), options)
    seed = np.array([options.seed, step], np.int32)
    losses.append(classifier.step(*texts.batch(rows), texts.targets[rows], rate, options.dropout, seed).numpy())
    advance()
  if not np.isfinite(loss := np.mean(losses)):
    raise SorbusError(f"epoch {epoch + 1}: the loss is no number any more; give a smaller --learning-rate")
  return float(loss)


def train(classifier: Classifier, texts: Texts, dev: Texts, options: argparse.Namespace, files: TrainingFiles) -> None:
  """Runs the epochs that are not done yet, and keeps the checkpoint of the best by the micro F1 of `dev`."""
  tf.config.experimental.enable_op_determinism()  # so that a training that was killed ends as one that was not
  tf.config.experimental.enable_tensor_float_32_execution(False)  # a GPU's, with 10 bits of the fraction
  steps = -(-len(texts.targets) // options.batch_size)
  console = Console(stderr=True)
  bar = Progress(console=console, transient=True, disable=not console.is_terminal)
  task = bar.add_task("", total=steps * options.epochs, completed=steps * len(files.epochs))
  if files.epochs:
    print(f"{files.folder}: {len(files.epochs)} of {options.epochs} epochs are done already")
  for epoch in range(len(files.epochs), options.epochs):
    bar.update(task, description=f"epoch {epoch + 1}")
    with bar:
      loss = run_epoch(classifier, texts, epoch, options, lambda: bar.advance(task))
      found = measure(dev.targets, classifier.predict(dev), options.head)
    best = rank(found) > max(map(rank, files.epochs), default=(-1.0, 0.0))
    if best:
      files.write_checkpoint((epoch + 1) * steps, classifier.variables)
    files.add_epoch(
      {"epoch": epoch + 1, "train_loss": loss, "best": best} | found, classifier.variables | classifier.slots
    )
    print(
      f"epoch {epoch + 1} of {options.epochs}: trained at {loss:.4f}, {shown(found)}{', the best' * best}", flush=True
    )


def rank(found: Mapping[str, float]) -> tuple[float, float]:
  """By micro F1; where that is the same, as while no label is predicted yet, by the loss."""
  return found["micro_f1"], -found["loss"]


def tell_results(classifier: Classifier, dev: Texts, files: TrainingFiles) -> None:
  """Measures the best checkpoint as it was written, and writes its probabilities."""
  for name, value in read_checkpoint(str(files.folder)).variables.items():
    classifier.variables[name].assign(value)
  probabilities = classifier.predict(dev)
  files.write_probabilities(probabilities)
  print(f"the best, as written: {shown(measure(dev.targets, probabilities, classifier.head))}")
  if classifier.head == "sigmoid":
    scores = {t / 100: measure(dev.targets, probabilities, "sigmoid", t / 100)["micro_f1"] for t in range(5, 100, 5)}
    best = max(scores, key=lambda threshold: scores[threshold])
    print(f"  that is at threshold 0.5; at {best}, the best one for these same texts, micro F1 {scores[best]:.4f}")
  if classifier.readout.combine == "fused":
    mix = classifier.mix(dev)  # [N, L]
    for i, column in zip(classifier.readout.layers, mix.T, strict=True):
      print(f"  layer {i} in the mix: {column.mean():.3f}, from text to text {column.min():.3f} to {column.max():.3f}")


def shown(found: Mapping[str, float]) -> str:
  """Returns metrics for a person."""
  return ", ".join(f"{name.replace('_', ' ').replace('f1', 'F1')} {value:.4f}" for name, value in found.items())


def freeze_command(checkpoint: Checkpoint, options: argparse.Namespace) -> str:
  """Returns the command that comes next; its casing is said where it is not the one that the vocabulary suggests."""
  folder = str(Path(options.output))  # without a slash at its end
  words = ["sorbus", "freeze", folder, f"{folder}-encoder", "--head", options.head]
  words += ["--combine", "fused"] if options.combine == "fused" else []
  words += ["--labels", f"{folder}/{LABELS}", "--max-seq-length", str(options.max_seq_length)]
  ours, theirs = asdict(checkpoint.tokenizer), asdict(read_checkpoint(folder).tokenizer)
  for name in ("lowercase", "strip_accents", "tokenize_chinese_chars"):
    if ours[name] != theirs[name]:
      words.append(f"--{'' if ours[name] else 'no-'}{name.replace('_', '-')}")
  return shlex.join(words)


def fine_tune(options: argparse.Namespace) -> None:
  """Reads, trains, and tells."""
  checkpoint = read_checkpoint(options.checkpoint, bert_config=options.bert_config, vocab=options.vocab)
  if not isinstance(checkpoint.config, BertConfig):
    raise UsageError(f"{options.checkpoint}: is {checkpoint.architecture.a_name}; what is trained here is a BERT")
  check_options(options, checkpoint.config.max_position_embeddings)
  rows = read_rows(options.train)
  rows, dev_rows = (rows, read_rows(options.dev)) if options.dev else split_rows(rows, options.seed)
  labels = read_labels(options.labels) if options.labels else labels_of(rows)
  wordpiece = Wordpiece(checkpoint.vocabulary, checkpoint.tokenizer, options.max_seq_length)
  texts, dev = (encode_rows(some, wordpiece, labels, options.head) for some in (rows, dev_rows))
  fused = options.combine == "fused"
  values = initial_values(checkpoint, len(labels), fused, options.seed)
  classifier = Classifier(values, checkpoint.config, options.head, fused, options.frozen, options.head_rate)
  files = TrainingFiles(options.output, settings_of(options, values, labels, texts.sha256(), dev.sha256()))
  files.begin(classifier.variables | classifier.slots, checkpoint, labels)
  tell_task(classifier, texts, dev, labels)
  train(classifier, texts, dev, options, files)
  tell_results(classifier, dev, files)
  print(f"next: {freeze_command(checkpoint, options)}")


def settings_of(options: argparse.Namespace, values: Mapping[str, np.ndarray], *texts: object) -> dict[str, object]:
  """Returns all that decides what comes out, by the names that a person knows; where files lie does not."""
  settings = {f"--{name.replace('_', '-')}": getattr(options, name) for name in SETTINGS}
  return settings | {"initial weights": weights_sha256(values)[:12], "texts and labels": fingerprint(texts)[:12]}


def check_options(options: argparse.Namespace, positions: int) -> None:
  """Raises UsageError for a number out of its range."""
  ranges = {"epochs": (1, 10_000), "batch_size": (1, 100_000), "max_seq_length": (3, positions), "seed": (0, 2**31 - 1)}
  ranges |= {"learning_rate": (1e-9, 1.0), "head_rate": (1e-3, 1e3), "warm_up": (0.0, 0.9), "dropout": (0.0, 0.9)}
  for name, (least, most) in ranges.items():
    if not least <= getattr(options, name) <= most:
      option = f"--{name.replace('_', '-')}"
      raise UsageError(f"{option} {getattr(options, name)}: choose {least} to {most}")


def tell_task(classifier: Classifier, texts: Texts, dev: Texts, labels: Sequence[str]) -> None:
  """Prints what is trained on what, and how good it would be to know nothing but the most frequent label."""
  cut = np.concatenate([texts.tokens.truncated, dev.tokens.truncated]).mean()
  print(f"texts: {len(texts.targets):,} to train, {len(dev.targets):,} to measure; {cut:.1%} of them cut")
  print(f"trained: {len(classifier.trained)} of {len(classifier.variables)} variables; {len(labels)} labels")
  frequent = int(texts.targets.sum(0).argmax())
  guess = np.zeros_like(dev.targets)
  guess[:, frequent] = 1
  found = measure(dev.targets, guess, classifier.head)
  del found["loss"]
  print(f"majority baseline, always {labels[frequent]}: {shown(found)}")


def make_parser() -> argparse.ArgumentParser:
  """Returns the parser of the options."""
  p = argparse.ArgumentParser(
    description="Fine-tune a BERT on labelled texts, into a checkpoint in Google's layout for `sorbus freeze --head`.\n"
    "The best epoch by micro F1 is kept. A training that was interrupted or killed goes on with the same command.",
    epilog=f"FILE: {FORM}; further columns are ignored.\n"
    f"OUTPUT: model.ckpt-*, checkpoint, bert_config.json, vocab.txt, {LABELS}, {METRICS} and {PREDICTED}.",
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  p.add_argument(
    "checkpoint", metavar="CHECKPOINT", help="a BERT that `sorbus freeze` reads: Google's or Hugging Face's"
  )
  p.add_argument("output", metavar="OUTPUT", help="a new folder, or that of a training to go on with")
  p.add_argument("--train", required=True, metavar="FILE", help="texts to train with")
  p.add_argument(
    "--dev", metavar="FILE", help="texts to measure with; default: a tenth of those to train with, by chance"
  )
  p.add_argument(
    "--labels", metavar="FILE", help="names by their ids, as for `sorbus freeze`; default: those in --train"
  )
  p.add_argument(
    "--head",
    choices=("softmax", "sigmoid"),
    default="softmax",
    help="softmax: each text has one label; sigmoid: several or none, and the loss is the mean over texts and labels "
    "of the sigmoid cross entropy; default: %(default)s",
  )
  p.add_argument("--combine", choices=("fused",), help="learn a mix of all layers, on which the pooler stands")
  p.add_argument("--frozen", action="store_true", help="leave embeddings and blocks as they are; train what is above")
  p.add_argument("--epochs", type=int, default=3, help="default: %(default)s")
  p.add_argument("--batch-size", type=int, default=32, metavar="B", help="texts in a step; default: %(default)s")
  p.add_argument(
    "--learning-rate",
    type=float,
    default=3e-5,
    metavar="RATE",
    help="at its highest; 2e-5 to 5e-5 for a BERT of 12 layers, 2e-4 for one of two; default: %(default)s",
  )
  p.add_argument(
    "--head-rate",
    type=float,
    default=1.0,
    metavar="TIMES",
    help="how many times as fast pooler, mix and head learn, which are new or far from these labels; default: 1",
  )
  p.add_argument("--warm-up", type=float, default=0.1, metavar="SHARE", help="of all steps; default: %(default)s")
  p.add_argument(
    "--max-seq-length", type=int, default=128, metavar="T", help="with [CLS] and [SEP]; default: %(default)s"
  )
  p.add_argument("--dropout", type=float, default=0.1, metavar="SHARE", help="default: %(default)s")
  p.add_argument("--seed", type=int, default=0, help="of order, dropout and the new weights; default: %(default)s")
  p.add_argument("--bert-config", metavar="FILE", help="bert_config.json, where it is not beside the checkpoint")
  p.add_argument("--vocab", metavar="FILE", help="vocab.txt, where it is not beside the checkpoint")
  return p


def main(arguments: Sequence[str] | None = None) -> int:
  """Returns the exit code: 0, 1 for what failed, 2 for what cannot be right, 130 when interrupted."""
  options = make_parser().parse_args(arguments)
  try:
    fine_tune(options)
  except SorbusError as error:
    print(f"error: {error}", file=sys.stderr)
    return error.exit_code
  except (OSError, tf.errors.OpError) as error:  # a full disk, or too little memory
    print(f"error: {options.output}: {str(error).splitlines()[0][:200]}", file=sys.stderr)
    return 1
  except KeyboardInterrupt:
    print("interrupted; the same command goes on after the last epoch that was done", file=sys.stderr)
    return INTERRUPTED
  return 0


if __name__ == "__main__":
  sys.exit(main())
