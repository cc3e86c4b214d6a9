import json
from dataclasses import replace

import pytest

from pipeline.model.choose_head import choose_head, read_labels
from pipeline.model.choose_readout import choose_readout
from pipeline.model.read_checkpoint import read_checkpoint
from tests.tiny_bert import (
  write_google_checkpoint,
  write_hugging_face_folder,
  write_sentence_transformers_folder,
)
from transforms.encoder_spec import Head, Readout
from transforms.errors import EncoderError, UsageError

LABELS = ("joy", "anger", "neutral, mostly")


def write(path, content):
  path.write_bytes(content if isinstance(content, bytes) else content.encode())
  return str(path)


def chosen(folder, layers=None, **wishes):
  checkpoint = read_checkpoint(str(folder))
  readout, _ = choose_readout(checkpoint, layers=layers)
  return choose_head(checkpoint, readout, **wishes)


@pytest.mark.parametrize(
  "text",
  [
    "joy\nanger\nneutral, mostly\n",
    "joy \r\nanger\r\nneutral, mostly\r\n\r\n",
    "\ufeffjoy\nanger\nneutral, mostly",
    '["joy", "anger", "neutral, mostly"]',
    '{"neutral, mostly": 2, "joy": 0, "anger": 1}',
    '\n{"2": "neutral, mostly", "0": "joy", "1": "anger"}',
  ],
)
def test_labels_in_every_form(tmp_path, text):
  assert read_labels(write(tmp_path / "labels", text)) == LABELS


def test_labels_of_other_scripts_and_numbers_for_names(tmp_path):
  assert read_labels(write(tmp_path / "a", '{"财经": 1, "体育": 0}')) == ("体育", "财经")
  assert read_labels(write(tmp_path / "b", "体育\n财经\n")) == ("体育", "财经")
  assert read_labels(write(tmp_path / "c", '{"1": 0, "0": 1}')) == ("1", "0")  # ids are the numbers, names the strings
  assert read_labels(write(tmp_path / "d", '{"1": "0", "0": "1"}')) == ("1", "0")


def test_real_labels(shared_data):
  labels = read_labels(str(shared_data / "labels/goemotions/labels.txt"))
  assert (len(labels), labels[0], labels[-1]) == (28, "admiration", "neutral")


@pytest.mark.parametrize(
  ("content", "message"),
  [
    ("", "label 0 is '', which is no name on one line; --labels takes a label a line, a JSON list"),
    ("joy\n\nanger\n", "label 1 is '', which is no name"),
    ("joy\nanger\njoy\n", "'joy' is both label 0 and 2; give each label once"),
    ("0\tjoy\n1\tanger\n", r"label 0 is '0\\tjoy', which is no name on one line"),
    ('["joy", "joy"]', "'joy' is both label 0 and 1"),
    ('["joy", 1]', "label 1 is '1', which is no name"),
    ('["joy", {"a": 0}]', "label 1 is .*, which is no name"),
    ('["joy", " "]', "label 1 is ' ', which is no name"),
    ('["\\ud800"]', "label 0 is .*, which is no name"),
    ('{"joy": 0, "anger": 2}', "label 'anger' has id 2 where 1 would be next; --labels takes ids 0 to 1, each once"),
    ('{"joy": 1, "anger": 2}', "label 'joy' has id 1 where 0 would be next"),
    ('{"joy": -1, "anger": 0}', "label 'joy' has id -1 where 0"),
    ('{"joy": 0, "anger": 0}', "label 'joy' has id 0 where 1 would be next"),
    ('{"joy": 0, "joy": 1}', "'joy' is both label 0 and 1"),
    ('{"0": "joy", "0": "anger"}', "label 'joy' has id 0 where 1 would be next"),
    ('{"0": "joy", "1": "joy"}', "'joy' is both label 0 and 1"),
    ('{"0": "joy", "one": "anger"}', "no labels that can be read; --labels takes a label a line"),
    ('{"joy": "0"}', "no labels that can be read"),
    ('{"joy": 0.0}', "no labels that can be read"),
    ('{"joy": true, "anger": false}', "no labels that can be read"),
    ("{}", "no labels that can be read"),
    ('{"joy": 0', "begins as JSON and is none"),
    ("[" * 100_000, "begins as JSON and is none"),
    (b"\xff\xfe", "not UTF-8 text"),
    ('{"O": 0, "B-PER": 1, "I-PER": 2}', "'B-PER' and 'O' are labels of tokens .* out of Sorbus's scope; leave --head"),
    ("B-LOC\nI-LOC\nO\n", "'B-LOC' and 'O' are labels of tokens"),
  ],
)
def test_labels_that_cannot_be_are_refused_in_one_line(tmp_path, content, message):
  path = write(tmp_path / "labels", content)
  with pytest.raises(EncoderError, match=f"^{path}: {message}") as caught:
    read_labels(path)
  assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
  for path in (tmp_path / "labels", tmp_path):
    with pytest.raises(EncoderError, match=rf"^{path}: cannot be read \(.*\); --labels takes a label a line"):
      read_labels(str(path))


def test_an_o_or_a_dash_alone_is_no_tag(tmp_path):
  assert read_labels(write(tmp_path / "labels", "A\nB\nO\nAB\n")) == ("A", "B", "O", "AB")  # blood groups
  assert read_labels(write(tmp_path / "labels", "B-movie\nA-movie\n")) == ("B-movie", "A-movie")


@pytest.fixture(scope="module")
def google(tmp_path_factory):
  return write_google_checkpoint(tmp_path_factory.mktemp("google") / "c", head=3)


def test_no_head_unasked(google):
  line = "head: none; the checkpoint has one over 3 labels, which --head softmax or sigmoid takes along"
  assert chosen(google) == (None, (line,))
  with pytest.raises(UsageError, match=r"^--labels x\.txt: without --head there is nothing to label; add --head"):
    chosen(google, labels="x.txt")


def test_the_head_that_is_asked_for_is_told(google, tmp_path):
  path = write(tmp_path / "labels.json", json.dumps({label: i for i, label in enumerate(LABELS)}))
  assert chosen(google, kind="sigmoid", labels=path) == (
    Head("sigmoid", LABELS),
    (f"head: sigmoid over 3 labels, joy, anger, neutral, mostly (labels from {path})",),
  )
  head, lines = chosen(google, layers=(1,), kind="softmax")
  assert head == Head("softmax", ("0", "1", "2"))
  assert lines == (
    "head: softmax over 3 labels, 0, 1, 2 (their names are not known: --labels gives them)",
    "note: the head stands on the last layer, so all 2 are computed",
  )


def test_labels_of_another_number_are_refused(google, tmp_path):
  path = write(tmp_path / "labels.txt", "joy\nanger\n")
  with pytest.raises(
    EncoderError, match=f"^{path}: 2 labels, the checkpoint's head has 3; give --labels with those it"
  ):
    chosen(google, kind="sigmoid", labels=path)


def test_a_head_that_is_not_known(google):
  with pytest.raises(UsageError, match=r"^--head crf: not known; choose softmax or sigmoid$"):
    chosen(google, kind="crf")


def test_a_softmax_over_one_label_says_nothing(tmp_path):
  folder = write_google_checkpoint(tmp_path / "c", head=1)
  with pytest.raises(UsageError, match=r"^--head softmax: the one label .* always have probability 1; choose sigmoid$"):
    chosen(folder, kind="softmax")
  assert chosen(folder, kind="sigmoid")[1][0].startswith("head: sigmoid over 1 label, 0 (")


def test_hugging_face_folders_may_state_labels(tmp_path):
  id2label = {"1": "anger", "0": "joy", "2": "neutral, mostly"}
  folder = write_hugging_face_folder(tmp_path / "h", head=3, id2label=id2label)
  head, (line,) = chosen(folder, kind="softmax")
  assert head.labels == LABELS and line.endswith("(labels stated by the folder)")
  path = write(tmp_path / "labels.txt", "a\nb\nc\n")
  assert chosen(folder, kind="softmax", labels=path)[0].labels == ("a", "b", "c")
  assert chosen(write_hugging_face_folder(tmp_path / "n", head=2), kind="softmax")[0].labels == ("0", "1")


def test_what_a_hugging_face_folder_states_is_checked_only_where_it_matters(tmp_path):
  folder = write_hugging_face_folder(tmp_path / "h", head=3, id2label={"0": "joy"}, architectures=7)
  assert chosen(folder) == (None, ())
  with pytest.raises(
    EncoderError, match=r"config\.json id2label: 1 labels, the checkpoint's head has 3; give --labels"
  ):
    chosen(folder, kind="softmax")
  folder = write_hugging_face_folder(tmp_path / "i", head=3, id2label="joy")
  with pytest.raises(EncoderError, match=r"config\.json id2label: no labels that can be read"):
    chosen(folder, kind="softmax")


def test_the_loss_that_a_folder_states_is_held_against_the_wish(tmp_path):
  folder = write_hugging_face_folder(tmp_path / "h", head=3, problem_type="multi_label_classification")
  assert len(chosen(folder, kind="sigmoid")[1]) == 1
  assert chosen(folder, kind="softmax")[1][1] == (
    "warning: config.json says multi_label_classification, which is --head sigmoid; softmax was asked for"
  )


@pytest.mark.parametrize(
  ("stated", "what"),
  [
    ({"problem_type": "regression"}, "a regression"),
    ({"architectures": ["BertForMultipleChoice"]}, "a choice between texts"),
  ],
)
def test_scores_that_are_no_probabilities_are_refused(tmp_path, stated, what):
  folder = write_hugging_face_folder(tmp_path / "h", head=1, **stated)
  with pytest.raises(UsageError, match=rf"h was trained for {what} by its config\.json: .*; leave --head out$"):
    chosen(folder, kind="sigmoid")
  assert chosen(folder) == (None, ())


def test_one_label_of_hugging_face_may_be_a_regression(tmp_path):
  folder = write_hugging_face_folder(tmp_path / "h", head=1)
  assert chosen(folder, kind="sigmoid")[1][1].startswith("warning: Hugging Face trains one label as a regression")
  folder = write_hugging_face_folder(tmp_path / "i", head=1, problem_type="multi_label_classification")
  assert len(chosen(folder, kind="sigmoid")[1]) == 1


def test_a_classifier_of_tokens_is_out_of_scope(tmp_path):
  folder = write_hugging_face_folder(tmp_path / "h", head=3, architectures=["BertForTokenClassification"])
  with pytest.raises(UsageError, match=r"h is a classifier of tokens by its config\.json, .* out of Sorbus's scope"):
    chosen(folder, kind="softmax")
  tags = {"0": "O", "1": "B-PER", "2": "I-PER"}
  folder = write_hugging_face_folder(tmp_path / "i", head=3, id2label=tags)
  with pytest.raises(EncoderError, match=r"i/config\.json id2label: 'B-PER' and 'O' are labels of tokens"):
    chosen(folder, kind="softmax")


def test_a_sentence_transformers_folder_has_no_head(tmp_path):
  folder = write_sentence_transformers_folder(tmp_path / "s", head=3)
  with pytest.raises(UsageError, match=r"s is a sentence-transformers folder, which has no classifier; leave --head"):
    chosen(folder, kind="softmax")


@pytest.mark.parametrize(
  ("write_folder", "names"),
  [
    (write_google_checkpoint, "output_weights, output_bias"),
    (write_hugging_face_folder, "classifier.weight, classifier.bias"),
  ],
)
def test_a_checkpoint_without_a_head_is_told_so_in_its_own_names(tmp_path, write_folder, names):
  folder = write_folder(tmp_path / "c")
  with pytest.raises(
    EncoderError, match=f"has no {names}, so it was not trained as a classifier .*; leave --head out$"
  ):
    chosen(folder, kind="softmax")


def test_a_head_is_offered_where_freezing_would_take_it(tmp_path):
  one = write_google_checkpoint(tmp_path / "g", head=1)
  assert chosen(one)[1] == ("head: none; the checkpoint has one over 1 label, which --head sigmoid takes along",)
  tags = write_hugging_face_folder(tmp_path / "h", head=3, architectures=["BertForTokenClassification"])
  assert chosen(tags) == chosen(write_google_checkpoint(tmp_path / "n")) == (None, ())
  checkpoint = read_checkpoint(str(one))
  without_pooler = {name: value for name, value in checkpoint.variables.items() if "pooler" not in name}
  assert choose_head(replace(checkpoint, variables=without_pooler), Readout("mean", (2,))) == (None, ())
