import io

from rich.console import Console

from pipeline.model.describe import describe_model
from pipeline.model.freeze import FreezeOptions, freeze
from pipeline.show_model import show_model
from tests.tiny_bert import write_google_checkpoint, write_hugging_face_folder
from tests.tiny_sentence_piece import tiny_bytes, tiny_model
from tests.tiny_xlnet import write_google_xlnet
from transforms.frozen_graph import tf


def printed(path, **options):
  return shown(describe_model(str(path), **options))


def shown(description):
  console = Console(file=io.StringIO(), width=20)  # no line is wrapped, however narrow the terminal
  show_model(description, console)
  return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_a_checkpoint(tmp_path):
  folder = write_google_checkpoint(tmp_path / "c", classifier=True, adam=True)
  (tmp_path / "t.txt").write_text("The rain\n")
  assert printed(folder, sample=str(tmp_path / "t.txt")) == [
    f"{folder}/model.ckpt-100",
    "kind          google checkpoint, can be frozen",
    "model         BERT, 2 layers, hidden size 32, 2 attention heads, 64 positions, 122 tokens, activation gelu_tanh",
    "variables     41 used, with 32,643 numbers; 80 unused, 0 missing",
    "  unused      78 optimizer: bert/embeddings/LayerNorm/beta/adam_m, bert/embeddings/LayerNorm/beta/adam_v, "
    "bert/embeddings/LayerNorm/gamma/adam_m and 75 more",
    "  unused      1 pre-training heads: cls/predictions/output_bias",
    "  unused      1 training state: global_step",
    "vocabulary    122 tokens, without capitals",
    "casing        lower-cased, accents stripped (guessed from the vocabulary's letters: a checkpoint does not say), "
    "fits the vocabulary",
    f"sample        1 texts of {tmp_path}/t.txt",
    "              lower-cased, accents stripped: 0.0% of the texts cut at 64 tokens; of the 2 tokens kept 0.0% are "
    "unknown",
    "              as it stands, accents kept: 0.0% of the texts cut at 64 tokens; of the 2 tokens kept 50.0% are "
    "unknown",
    "freezes to    --layers 0 to 2; --pooling pooler, cls, mean, max, mean-max, last",
    "              --combine average, sum, concat",
    "              --head softmax or sigmoid over 3 labels: 0, 1, 2",
    "stated        neither pooling nor length",
    "by default    pooler of layer 2, 64 tokens",
  ]


def test_what_is_wrong_comes_last(tmp_path):
  folder = write_hugging_face_folder(tmp_path / "h")
  (folder / "tokenizer_config.json").write_text('{"do_lower_case": false}')
  (folder / "model.safetensors").unlink()
  lines = printed(folder)
  own = [line for line in lines if "100.0% unknown where they begin a sentence, 0.0% in pieces, 0 tokens" in line]
  assert len(own) == 1 and own[0].startswith("own words     as it stands, accents kept: ")
  assert lines[1] == "kind          hugging-face checkpoint, cannot be frozen: see the problems"
  assert lines[-2].startswith("warning: texts are not lower-cased, but then 100.0%")
  assert lines[-1].startswith(f"problem: {folder}/model.safetensors: not there")


def test_a_learned_mix_that_is_not_whole_is_told(tmp_path):
  found = describe_model(str(write_google_checkpoint(tmp_path / "c", layers=1, mix=True)))
  assert not [line for line in shown(found) if "not fused" in line]
  found["freezes_to"]["not"]["fused"] = "has no layer_logit0/bias"
  assert "              not fused: has no layer_logit0/bias" in shown(found)


def test_what_a_sample_says_of_a_model(tmp_path):
  folder = write_google_checkpoint(tmp_path / "c")
  sample = tmp_path / "texts.txt"
  sample.write_text("é ü ж ж ж и и\n" * 2 + "the rain\n")
  unknown = "warning: 62% of the tokens are unknown to the encoder: is its vocabulary for this language?"
  assert printed(folder, sample=str(sample))[-1] == unknown
  freeze(str(folder), str(tmp_path / "e"), FreezeOptions(max_seq_length=6), lambda line: None)
  cut = "note: more than half of the texts are cut, and the model has more positions: --max-seq-length goes up to 64"
  assert printed(tmp_path / "e", sample=str(sample))[-2:] == [unknown.replace("62%", "40%"), cut]
  (tmp_path / "texts.csv").write_text("body\nThe rain\n")
  lines = printed(folder, sample=str(tmp_path / "texts.csv"))
  remedy = "name it with --text-column, or give --no-header if its first line is a document already"
  assert lines[1].endswith("can be frozen")
  assert lines[-1] == "problem: --sample: texts.csv has no column 'text'; its columns are: body; " + remedy


def test_what_a_sample_cannot_tell_is_not_guessed(tmp_path):
  folder, sample = write_hugging_face_folder(tmp_path / "h"), tmp_path / "texts.txt"
  sample.write_text("The Rain " * 40 + "\n")
  assert printed(folder, sample=str(sample))[-1].startswith("by default")  # it has no more positions
  (folder / "tokenizer_config.json").write_text('{"do_lower_case": false}')
  warnings = [line for line in printed(folder, sample=str(sample)) if line.startswith("warning: ")]
  assert len(warnings) == 1 and warnings[0].endswith(
    "is --lowercase meant?"
  )  # nor is another language the likely cause


def test_an_encoder(tmp_path):
  folder = tmp_path / "e"
  spec = freeze(
    str(write_google_checkpoint(tmp_path / "c")), str(folder), FreezeOptions(layers=(0, 2)), lambda line: None
  )
  lines = printed(folder)
  assert lines[:7] == [
    str(folder),
    "kind          encoder, can be used",
    f"fingerprint   {spec.fingerprint}",
    "source        c/model.ckpt-100 (google)",
    "model         BERT, 2 layers, hidden size 32, 2 attention heads, 64 positions, 122 tokens, activation gelu_tanh",
    "vector        32 numbers: mean, average of layers 0 2",
    "length        64 tokens",
  ]
  assert f"vocab.txt     0.0 MB, sha256 {spec.vocab_sha256[:12]}, as frozen" in lines
  assert lines[-1].startswith("self-test     passed: off by ") and lines[-1].endswith("allowed, 7 sequences")
  (folder / "vocab.txt").write_text("")
  lines = printed(folder)
  assert lines[1] == "kind          encoder, cannot be used: see the problems"
  assert lines[-2] == "self-test     not passed, or not run: see the problems"
  assert lines[-1].startswith(f"problem: {folder}/vocab.txt: sha256 ")


def test_a_graph(tmp_path):
  freeze(str(write_google_checkpoint(tmp_path / "c")), str(tmp_path / "e"), FreezeOptions(), lambda line: None)
  lines = printed(tmp_path / "e" / "encoder.pb")
  assert lines[1] == "kind          TensorFlow graph, can be made an encoder"
  assert lines[3:5] == ["inputs        input_ids int32 [?, ?]", "              input_mask int32 [?, ?]"]
  assert lines[5:] == [
    "outputs       bert/pooled float32 [?, 32]",
    "by default    input ids input_ids, input mask input_mask, output bert/pooled (the only node that depends on the "
    "ids and is used by no other)",
  ]


def test_what_a_stranger_wrote_into_a_graph_is_no_order_for_the_terminal(tmp_path):
  definition = tf.compat.v1.GraphDef()
  definition.node.add(name="x\n\x1b[31m", op="Foo\x1b[31m")
  (tmp_path / "graph.pb").write_bytes(definition.SerializeToString())
  lines = printed(tmp_path / "graph.pb")
  assert not [line for line in lines if not line.isprintable()]
  assert [line for line in lines if line.startswith("problem: ") and "'x\\n\\x1b[31m' is a Foo\\x1b[31m" in line]


def test_an_xlnet_has_no_end_of_positions(tmp_path):
  folder = write_google_xlnet(tmp_path / "x", tiny_bytes(), vocab_size=len(tiny_model()))
  (tmp_path / "t.txt").write_text("sun " * 300 + "\n")
  lines = printed(folder, sample=str(tmp_path / "t.txt"))
  assert (
    lines[2] == "model         XLNet, 2 layers, hidden size 32, 2 attention heads, 220 tokens, activation gelu_tanh"
  )
  note = "the model takes any number of tokens: give a larger --max-seq-length"
  assert f"note: more than half of the texts are cut, and {note}" in lines
