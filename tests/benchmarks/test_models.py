import json

import benchmarks.models
from benchmarks.models import write_bert_base
from pipeline.model.read_checkpoint import read_checkpoint
from tests.tiny_bert import VOCABULARY, write_sentence_transformers_folder


def test_a_made_model_is_read_as_one_that_was_trained_with_the_same_sizes(tmp_path, monkeypatch):
  sizes = {"LAYERS": 2, "H": 8, "HEADS": 2, "INTERMEDIATE": 32, "POSITIONS": 64, "MAX_SEQ_LENGTH": 32}
  for name, value in sizes.items():
    monkeypatch.setattr(benchmarks.models, name, value)
  made = write_bert_base(tmp_path / "made", "\n".join(VOCABULARY).encode())
  trained = write_sentence_transformers_folder(tmp_path / "trained", hidden_size=8)
  ours, theirs = (read_checkpoint(str(folder)) for folder in (made, trained))
  assert {name: value.shape for name, value in ours.variables.items()}.items() >= {
    name: value.shape for name, value in theirs.variables.items()
  }.items()
  assert ours.pooling == theirs.pooling
  names = ("modules.json", "sentence_bert_config.json")
  assert all(json.loads((made / name).read_text()) == json.loads((trained / name).read_text()) for name in names)
