"""The example that fine-tunes: what it reads, what one step does, and what it refuses, in this process.

`tests/integration/test_finetune.py` runs it as a person does.
"""

import argparse
import json
import os
import shlex
import signal
import sys
from dataclasses import replace

import numpy as np
import pytest

from pipeline.model.bert_numpy import bert_probabilities
from pipeline.model.read_checkpoint import read_checkpoint
from tests.conftest import REPOSITORY
from tests.tiny_bert import VOCABULARY, WORDS, write_google_checkpoint, write_hugging_face_folder
from transforms.errors import UsageError
from transforms.wordpiece import TokenizerSettings, Wordpiece

sys.path.insert(0, str(REPOSITORY / "examples" / "finetune"))  # as Python does for a script
from classifier import Classifier, dropper, initial_values
from finetune import freeze_command, learning_rate, main, make_parser
from labelled_texts import Row, encode_rows, labels_of, measure, read_rows, split_rows
from training_files import TrainingFiles, replace_file

WORDPIECE = Wordpiece(VOCABULARY, TokenizerSettings(True, True), 16)
LABELS = ("joy", "anger", "neutral")
SEED = np.array([0, 0], np.int32)


def made_rows(n, labels=LABELS):
  """Texts of 1 to 12 words, each with a label or two."""
  generator = np.random.default_rng(0)
  return [
    Row(f"t line {i + 1}", " ".join(generator.choice(WORDS, 1 + i % 12)), tuple({labels[i % 3], labels[i % 2]}))
    for i in range(n)
  ]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
  return read_checkpoint(str(write_google_checkpoint(tmp_path_factory.mktemp("c"), head=5, mix=True)))


def made_classifier(checkpoint, head="sigmoid", fused=False, frozen=False):
  """One whose head and mix are no longer as they begin, so that texts and layers differ."""
  values, generator = initial_values(checkpoint, len(LABELS), fused, 0), np.random.default_rng(1)
  values |= {
    name: generator.normal(size=v.shape).astype(np.float32) for name, v in values.items() if "bert/" not in name
  }
  return Classifier(values, checkpoint.config, head, fused, frozen), values


@pytest.fixture(scope="module")
def texts():
  return encode_rows(made_rows(40), WORDPIECE, LABELS, "sigmoid")


# What is read.


def test_a_line_is_a_text_and_its_labels_and_more_that_is_not_read(tmp_path):
  (tmp_path / "t").write_bytes('\ufeffHe said "no"\t joy,anger,\tid1\r\nthe rain\t\n'.encode())
  place = f"{tmp_path}/t line"
  assert read_rows(f"{tmp_path}/t") == [
    Row(f"{place} 1", 'He said "no"', ("joy", "anger")),
    Row(f"{place} 2", "the rain", ()),
  ]


def test_blank_lines_are_no_texts_and_lines_keep_their_numbers(tmp_path):
  (tmp_path / "t").write_bytes(b"the rain\tjoy\n\n \r\nthe sun\tanger\n\n\n")
  assert [row.place for row in read_rows(f"{tmp_path}/t")] == [f"{tmp_path}/t line 1", f"{tmp_path}/t line 4"]


def test_labels_are_names_or_their_numbers():
  rows = [Row("t line 1", "the rain", ("2", "joy")), Row("t line 2", "sun", ("anger",)), Row("t line 3", "a", ())]
  texts = encode_rows(rows, WORDPIECE, LABELS, "sigmoid")
  assert texts.targets.tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 0]]
  assert texts.tokens.lengths.tolist() == [4, 3, 3]


def test_a_label_that_is_called_by_a_number_is_never_taken_for_another():
  [known, unknown] = [Row("t line 1", "the rain", ("2",))], [Row("t line 2", "the sun", ("1",))]
  assert encode_rows(known, WORDPIECE, ("2", "10"), "softmax").targets.tolist() == [[1, 0]]
  with pytest.raises(UsageError, match=r"t line 2: label '1' is none of the 2 that there are \(2, 10 …\)"):
    encode_rows(unknown, WORDPIECE, ("2", "10"), "softmax")


def test_labels_that_nobody_lists_are_sorted_numbers_by_their_size():
  rows = [Row("t line 1", "a", ("10", "2")), Row("t line 2", "b", ("joy", "2")), Row("t line 3", "b", ("anger",))]
  assert labels_of(rows) == ("2", "10", "anger", "joy")


def test_a_tenth_is_drawn_by_the_seed():
  rows = made_rows(57)
  train, dev = split_rows(rows, 3)
  assert len(dev) == 5 and sorted(train + dev, key=rows.index) == rows
  assert split_rows(rows, 3)[1] == dev != split_rows(rows, 4)[1]


def test_shuffled_batches_have_each_text_once_and_like_lengths_together(texts):
  first, again, other = (texts.shuffled_batches(7, np.random.default_rng([0, epoch])) for epoch in (0, 0, 1))
  assert sorted(np.concatenate(first).tolist()) == list(range(40))
  assert sorted(map(len, first)) == [5, 7, 7, 7, 7, 7]
  assert [x.tolist() for x in first] == [x.tolist() for x in again] != [x.tolist() for x in other]
  assert np.mean([np.ptp(texts.tokens.lengths[rows]) for rows in first]) < 4
  few = texts.shuffled_batches(40, np.random.default_rng(0))
  assert [len(rows) for rows in few] == [40]


# How well labels are predicted.


def test_measures_of_numbers_worked_by_hand():
  targets = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1], [0, 0, 0]])
  probabilities = np.array([[0.8, 0.6, 0.1], [0.9, 0.7, 0.1], [0.1, 0.5, 0.4], [0.2, 0.1, 0.3]], np.float32)
  found = measure(targets, probabilities, "sigmoid")
  # Right 2, 1, 0; predicted 2, 2, 0 (a half is not above a half); true 2, 1, 1.
  assert found["micro_f1"] == pytest.approx(2 * 3 / (4 + 4))
  assert found["macro_f1"] == pytest.approx((1 + 2 / 3 + 0) / 3)
  assert found["subset_accuracy"] == 0.5
  right = [0.8, 0.4, 0.9, 0.9, 0.7, 0.9, 0.9, 0.5, 0.4, 0.8, 0.9, 0.7]
  assert found["loss"] == pytest.approx(-np.log(right).mean())
  assert measure(targets, probabilities, "sigmoid", 0.35)["micro_f1"] == pytest.approx(2 * 4 / (6 + 4))


def test_under_softmax_the_likeliest_label_is_predicted():
  targets, probabilities = np.eye(3)[[0, 1, 2, 0]], np.array([[0.4, 0.3, 0.3]] * 3 + [[0.2, 0.2, 0.6]])
  found = measure(targets, probabilities, "softmax")
  assert found["micro_f1"] == found["subset_accuracy"] == 0.25
  assert found["macro_f1"] == pytest.approx(2 * 1 / (3 + 2) / 3)
  assert found["loss"] == pytest.approx(-np.log([0.4, 0.3, 0.3, 0.2]).mean())


# What is trained.


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("head", ["softmax", "sigmoid"])
def test_it_predicts_what_numpy_does_also_where_the_epsilon_of_the_layer_norm_shows(checkpoint, texts, head, fused):
  small = {name: v * np.float32(0.02) for name, v in checkpoint.variables.items() if name.endswith("_embeddings")}
  classifier, values = made_classifier(replace(checkpoint, variables=checkpoint.variables | small), head, fused)
  rows = np.split(texts.tokens.input_ids, texts.tokens.offsets[1:-1])
  expected = [bert_probabilities(values, checkpoint.config, row, head, fused=fused) for row in rows]
  np.testing.assert_allclose(classifier.predict(texts), expected, rtol=0, atol=1e-5)


def test_a_new_mix_is_the_average_and_a_learned_one_is_told(checkpoint, texts):
  values = initial_values(checkpoint, len(LABELS), True, 0)
  np.testing.assert_allclose(Classifier(values, checkpoint.config, "sigmoid", True, False).mix(texts), 0.5)
  mix = made_classifier(checkpoint, fused=True)[0].mix(texts)
  assert mix.shape == (40, 2) and np.ptp(mix[:, 0]) > 0.1
  np.testing.assert_allclose(mix.sum(1), 1, rtol=0, atol=1e-6)


def test_what_is_new_is_drawn_by_the_seed_and_a_head_that_was_there_is_not_taken(checkpoint):
  values, other = (initial_values(checkpoint, 3, True, seed) for seed in (0, 1))
  assert values["output_weights"].shape == (3, 32) and 0.015 < values["output_weights"].std() < 0.025
  assert not values["output_bias"].any() and not values["layer_logit1/kernel"].any()
  assert [name for name in values if (values[name] != other[name]).any()] == ["output_weights"]
  assert all(values[name] is checkpoint.variables[name] for name in values if name.startswith("bert/"))


LOSSES = {
  "sigmoid": lambda targets, p: -np.log(np.where(targets > 0, p, 1 - p)).mean(),
  "softmax": lambda targets, p: -np.log(p[targets > 0]).mean(),
}


@pytest.mark.parametrize("head", LOSSES)
def test_steps_are_adam_without_bias_correction_and_decay_but_on_biases_and_layer_norms(checkpoint, texts, head):
  classifier, before = made_classifier(checkpoint, head, fused=True)
  m, v = (dict.fromkeys(before, np.float64(0)) for _ in "mv")
  for rows in (np.arange(8), np.arange(8, 20)):
    targets = np.eye(3, dtype=np.float32)[rows % 3]
    batch = checkpoint.config, texts, rows, head, targets
    loss = classifier.step(*texts.batch(rows), targets, 1e-4, 0.0, SEED)
    assert float(loss) == pytest.approx(loss_of_numpy(before, *batch), rel=1e-5)
    now = {name: variable.numpy().astype(np.float64) for name, variable in classifier.slots.items()}
    gradient = {name: (now[f"{name}/adam_m"] - 0.9 * m[name]) / 0.1 for name in before}
    norm = np.sqrt(sum(np.square(g).sum() for g in gradient.values()))
    times = slopes(before, gradient, *batch)
    assert times == pytest.approx([max(times)] * len(times), rel=1e-3)
    assert norm == pytest.approx(1, abs=1e-4) if max(times) > 1.01 else norm < 1 + 1e-4  # over all of them together
    for name, variable in classifier.variables.items():
      m[name], v[name] = now[f"{name}/adam_m"], 0.999 * v[name] + 0.001 * gradient[name] ** 2
      np.testing.assert_allclose(now[f"{name}/adam_v"], v[name], rtol=1e-4, atol=1e-15)
      decay = 0.0 if "bias" in name or "LayerNorm" in name else 0.01
      after = before[name] - 1e-4 * (m[name] / (np.sqrt(v[name]) + 1e-6) + decay * before[name])
      np.testing.assert_allclose(variable, after, rtol=0, atol=3e-7, err_msg=name)
    before = {name: variable.numpy() for name, variable in classifier.variables.items()}


def loss_of_numpy(values, config, texts, rows, head, targets):
  ids = np.split(texts.tokens.input_ids, texts.tokens.offsets[1:-1])
  p = np.array([bert_probabilities(values, config, ids[row], head, fused=True) for row in rows])
  return LOSSES[head](targets, p)


def slopes(values, gradient, *batch):
  """How many times as steep the loss is along each variable's gradient as that says: what clipping took, for all."""
  values, found = {name: value.astype(np.float64) for name, value in values.items()}, []
  for name, g in gradient.items():
    if (length := np.linalg.norm(g)) > 1e-4:  # of a key's bias it is 0
      up, down = (loss_of_numpy(values | {name: values[name] + t * g / length}, *batch) for t in (1e-4, -1e-4))
      found.append((up - down) / 2e-4 / length)
  return found


ABOVE = {"output_weights", "output_bias"}
ABOVE |= {
  f"{scope}/{part}" for scope in ("bert/pooler/dense", "layer_logit0", "layer_logit1") for part in ("kernel", "bias")
}


def test_frozen_moves_what_stands_above_the_blocks_only(checkpoint, texts):
  classifier, before = made_classifier(checkpoint, fused=True, frozen=True)
  classifier.step(*texts.batch(np.arange(8)), texts.targets[:8], 0.01, 0.0, SEED)
  moved = {name for name, variable in classifier.variables.items() if (variable.numpy() != before[name]).any()}
  assert moved == ABOVE


def test_what_stands_above_the_blocks_learns_as_much_faster_as_is_said(checkpoint, texts):
  moves = []
  for head_rate in (1.0, 4.0):
    values = made_classifier(checkpoint, fused=True)[1]
    classifier = Classifier(values, checkpoint.config, "sigmoid", True, head_rate=head_rate)
    classifier.step(*texts.batch(np.arange(8)), texts.targets[:8], 1e-3, 0.0, SEED)
    moves.append({name: np.abs(v.numpy() - values[name]).sum() for name, v in classifier.variables.items()})
  times = {name: moves[1][name] / moves[0][name] for name in moves[0]}
  above = {name for name, found in times.items() if found == pytest.approx(4, rel=1e-2)}
  assert above == ABOVE
  assert {round(times[name], 2) for name in times.keys() - above} == {1.0}


def test_dropout_is_decided_by_seed_and_step_alone(checkpoint, texts):
  classifier, _ = made_classifier(checkpoint)

  def loss(rate, *seed):
    return float(classifier.step(*texts.batch(np.arange(8)), texts.targets[:8], 0.0, rate, np.array(seed, np.int32)))

  assert loss(0.5, 0, 1) == loss(0.5, 0, 1)
  assert len({loss(0.5, 0, 1), loss(0.5, 0, 2), loss(0.5, 1, 1), loss(0.0, 0, 1)}) == 4
  assert loss(0.0, 0, 1) == loss(0.0, 0, 2)


def test_dropout_keeps_the_mean_and_is_another_one_at_each_place():
  drop = dropper(0.25, SEED)
  here, there = (drop(np.ones(10_000, np.float32)).numpy() for _ in range(2))
  assert set(here) == {np.float32(0), np.float32(4 / 3)} and np.mean(here == 0) == pytest.approx(0.25, abs=0.02)
  assert np.mean((here == 0) & (there == 0)) == pytest.approx(0.0625, abs=0.01)  # by chance, apart from each other


def test_the_rate_rises_and_falls():
  options = argparse.Namespace(learning_rate=1.0, warm_up=0.2)
  assert [learning_rate(step, 10, options) for step in range(10)] == pytest.approx(
    [0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]
  )
  options.warm_up = 0.0
  assert [learning_rate(step, 3, options) for step in range(3)] == pytest.approx([1.0, 1.0, 0.5])


# What it leaves, and what it refuses.


def begun(folder, checkpoint, texts, **settings):
  files = TrainingFiles(str(folder), {"--seed": 0} | settings)
  classifier, _ = made_classifier(checkpoint)
  files.begin(classifier.variables | classifier.slots, checkpoint, LABELS)
  return files, classifier


@pytest.mark.parametrize(("stated", "written"), [("gelu", "gelu_erf"), ("gelu_new", "gelu"), ("relu", "relu")])
def test_a_hugging_face_folder_s_activation_and_epsilon_are_kept(tmp_path, texts, stated, written):
  folder = write_hugging_face_folder(tmp_path / "h", hidden_act=stated, layer_norm_eps=1e-5)
  theirs = read_checkpoint(str(folder))
  files, classifier = begun(tmp_path / "o", theirs, texts)
  files.write_checkpoint(7, classifier.variables)
  ours = read_checkpoint(str(tmp_path / "o"))
  assert (ours.kind, ours.config, ours.vocabulary) == ("google", theirs.config, theirs.vocabulary)
  assert json.loads((tmp_path / "o/bert_config.json").read_text())["hidden_act"] == written
  assert ours.variables.keys() == classifier.variables.keys()
  assert all((ours.variables[name] == variable.numpy()).all() for name, variable in classifier.variables.items())


def test_only_the_last_checkpoint_that_was_written_is_kept(checkpoint, texts, tmp_path):
  files, classifier = begun(tmp_path, checkpoint, texts)
  for step in (1, 12):
    files.write_checkpoint(step, classifier.variables)
  assert sorted(path.name for path in tmp_path.glob("model*")) == [
    "model.ckpt-12.data-00000-of-00001",
    "model.ckpt-12.index",
  ]
  assert read_checkpoint(str(tmp_path)).name == f"{tmp_path}/model.ckpt-12"


def test_an_interrupt_waits_until_a_file_is_whole(tmp_path):
  before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have started us with none

  def write(file):
    os.kill(os.getpid(), signal.SIGINT)
    np.savez(file, a=np.arange(3))

  try:
    with pytest.raises(KeyboardInterrupt):
      replace_file(tmp_path / "state.npz", write)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
  finally:
    signal.signal(signal.SIGINT, before)
  assert [path.name for path in tmp_path.iterdir()] == ["state.npz"]
  assert np.load(tmp_path / "state.npz")["a"].tolist() == [0, 1, 2]


def test_the_command_that_comes_next_says_a_casing_that_the_vocabulary_does_not(checkpoint, texts, tmp_path):
  files, classifier = begun(tmp_path, checkpoint, texts)
  files.write_checkpoint(1, classifier.variables)
  options = make_parser().parse_args(["c", str(tmp_path), "--train", "t", "--head", "sigmoid", "--combine", "fused"])
  plain = (
    f"sorbus freeze {tmp_path} {tmp_path}-encoder --head sigmoid --combine fused "
    f"--labels {tmp_path}/labels.json --max-seq-length 128"
  )
  assert freeze_command(checkpoint, options) == plain
  other = replace(checkpoint, tokenizer=TokenizerSettings(True, False, False))
  assert freeze_command(other, options) == f"{plain} --no-strip-accents --no-tokenize-chinese-chars"
  tmp_path.rename(folder := tmp_path.with_name("my labels"))
  options.output = f"{folder}/"
  assert shlex.split(freeze_command(checkpoint, options))[:4] == ["sorbus", "freeze", f"{folder}", f"{folder}-encoder"]


def test_a_folder_of_something_else_or_of_another_training_is_refused(checkpoint, texts, tmp_path):
  (tmp_path / "other").mkdir()
  (tmp_path / "other/thesis.txt").write_text("mine")
  with pytest.raises(UsageError, match=r"other: holds something that is no training to go on with; give a new folder"):
    TrainingFiles(f"{tmp_path}/other", {})
  with pytest.raises(UsageError, match=r"thesis.txt: is no folder to write"):
    TrainingFiles(f"{tmp_path}/other/thesis.txt", {})
  begun(tmp_path / "o", checkpoint, texts)
  with pytest.raises(UsageError, match=r"o: holds a training with --seed 0, not 1; give another folder"):
    begun(tmp_path / "o", checkpoint, texts, **{"--seed": 1})
  state = tmp_path / "o/training-state.npz"
  state.write_bytes(state.read_bytes()[:1000])
  with pytest.raises(UsageError, match=r"training-state.npz: cannot be read .*; delete .*o to begin again"):
    begun(tmp_path / "o", checkpoint, texts)


@pytest.mark.parametrize(
  ("train", "options", "message"),
  [
    (None, (), "train.tsv: cannot be read (No such file or directory); give a TSV"),
    (b"the rain\t0\n\xff\t0\n", (), "train.tsv: not UTF-8 text ("),
    (b"the rain\t0\nthe sun\n", (), "train.tsv line 2: has no TAB; a line is a text, TAB, and its labels"),
    (b"\n", (), "train.tsv: has no text; a line is a text, TAB, and its labels"),
    (
      b"the rain\t0\nthe sun\t1\n \xe2\x80\x8b\t1\n",
      ("--dev", "{t}"),
      "train.tsv line 3: the text ' \\u200b' has no token",
    ),
    (
      b"the rain\t0\nsun\t7\n",
      ("--labels", "{l}"),
      "train.tsv line 2: label '7' is none of the 2 that there are (a, b …)",
    ),
    (b"the rain\t0\nthe sun\t0,1\n", ("--dev", "{t}"), "train.tsv line 2: 2 labels, softmax is for one each"),
    (b"the rain\t0\nthe sun\t\n", ("--dev", "{t}"), "--head softmax: '0', the only label, would always hold"),
    (b"the rain\t\n", ("--dev", "{t}", "--head", "sigmoid"), "train.tsv: no text has a label"),
    (b"the rain\ta\n", (), "train.tsv line 1: the only text; there is none to measure with"),
    (b"", ("--learning-rate", "30"), "--learning-rate 30.0: choose 1e-09 to 1.0"),
    (b"", ("--max-seq-length", "65"), "--max-seq-length 65: choose 3 to 64"),
  ],
)
def test_what_cannot_be_trained_with_is_refused_in_a_line(tmp_path, capsys, train, options, message):
  write_google_checkpoint(tmp_path / "c")
  if train is not None:
    (tmp_path / "train.tsv").write_bytes(train)
  (tmp_path / "l").write_text("a\nb\n")
  words = [word.format(t=tmp_path / "train.tsv", l=tmp_path / "l") for word in options]
  arguments = [str(tmp_path / "c"), str(tmp_path / "o"), "--train", str(tmp_path / "train.tsv")]
  assert main([*arguments, "--max-seq-length", "32", *words]) == 2
  [line] = capsys.readouterr().err.splitlines()
  assert line.startswith("error: ") and message in line and not (tmp_path / "o").exists()
