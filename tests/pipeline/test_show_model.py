import io

from rich.console import Console

from pipeline.model.describe import describe_model
from pipeline.model.freeze import FreezeOptions, freeze
from pipeline.show_model import show_model
from tests.tiny_bert import write_google_checkpoint, write_hugging_face_folder
from transforms.frozen_graph import tf


def printed(path, **options):
  console = Console(file=io.StringIO(), width=20)  # no line is wrapped, however narrow the terminal
  show_model(describe_model(str(path), **options), console)
  return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_a_checkpoint(tmp_path):
  folder = write_google_checkpoint(tmp_path / "c", classifier=True, adam=True)
  (tmp_path / "t.txt").write_text("The rain\n")
  assert printed(folder, sample=str(tmp_path / "t.txt")) == [
    f"{folder}/model.ckpt-100",
    "kind          google checkpoint, can be frozen",
    "model         2 layers, hidden size 32, 2 attention heads, 64 positions, 122 tokens, activation gelu_tanh",
    "variables     41 used, with 32,643 numbers; 80 unused, 0 missing",
    "  unused      78 optimizer: bert/embeddings/LayerNorm/beta/adam_m, bert/embeddings/LayerNorm/beta/adam_v, "
    "bert/embeddings/LayerNorm/gamma/adam_m and 75 more",
    "  unused      1 pre-training heads: cls/predictions/output_bias",
    "  unused      1 training state: global_step",
    "vocabulary    122 tokens, without capitals",
    "casing        lower-cased, accents stripped (guessed from the vocabulary's letters: a checkpoint does not say)",
    "own words     lower-cased, accents stripped: 0.0% unknown where they begin a sentence, 0.0% in pieces, 0 tokens "
    "that can never occur",
    "              as it stands, accents kept: 100.0% unknown where they begin a sentence, 0.0% in pieces, 0 tokens "
    "that can never occur",
    f"sample        1 texts of {tmp_path}/t.txt",
    "              lower-cased, accents stripped: 0.0% of 2 tokens unknown, 0.0% of the texts cut at 64 tokens",
    "              as it stands, accents kept: 50.0% of 2 tokens unknown, 0.0% of the texts cut at 64 tokens",
    "freezes to    --layers 0 to 2; --pooling pooler, cls, mean, max, mean-max, last",
    "              --combine average, sum, concat",
    "              --head softmax or sigmoid over 3 labels: 0, 1, 2",
    "              not fused: has no layer_logit0/kernel, layer_logit0/bias, layer_logit1/kernel and 1 more, so it was "
    "not trained with a learned mix of its layers",
    "stated        neither pooling nor length",
    "by default    pooler of layer 2, 64 tokens",
  ]


def test_what_is_wrong_comes_last(tmp_path):
  folder = write_hugging_face_folder(tmp_path / "h")
  (folder / "tokenizer_config.json").write_text('{"do_lower_case": false}')
  (folder / "model.safetensors").unlink()
  lines = printed(folder)
  assert lines[1] == "kind          hugging-face checkpoint, cannot be frozen: see the problems"
  assert lines[-2].startswith("warning: texts are not lower-cased, but then 100.0%")
  assert lines[-1].startswith(f"problem: {folder}/model.safetensors: not there")


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
    "model         2 layers, hidden size 32, 2 attention heads, 64 positions, 122 tokens, activation gelu_tanh",
    "vector        32 numbers: mean, average of layers 0 2",
    "length        64 tokens",
  ]
  assert f"vocab.txt     0.0 MB, sha256 {spec.vocab_sha256[:12]}, as frozen" in lines
  assert lines[-1].startswith("self-test     passed: off by ") and lines[-1].endswith("allowed, 6 sequences")
  (folder / "vocab.txt").write_text("")
  lines = printed(folder)
  assert lines[1] == "kind          encoder, cannot be used: see the problems"
  assert lines[-2] == "self-test     not passed, or not run: see the problems"
  assert lines[-1].startswith(f"problem: {folder}/vocab.txt: sha256 ")


def test_a_graph(tmp_path):
  freeze(str(write_google_checkpoint(tmp_path / "c")), str(tmp_path / "e"), FreezeOptions(), lambda line: None)
  lines = printed(tmp_path / "e" / "encoder.pb")
  assert lines[1] == "kind          frozen TensorFlow graph, only operations that an encoder may have"
  assert lines[3:5] == ["inputs        input_ids int32 [?, ?]", "              input_mask int32 [?, ?]"]
  assert lines[-1] == "outputs       bert/pooled float32 [?, 32]"


def test_what_a_stranger_wrote_into_a_graph_is_no_order_for_the_terminal(tmp_path):
  definition = tf.compat.v1.GraphDef()
  definition.node.add(name="x\n\x1b[31m", op="Foo\x1b[31m")
  (tmp_path / "graph.pb").write_bytes(definition.SerializeToString())
  lines = printed(tmp_path / "graph.pb")
  assert not [line for line in lines if not line.isprintable()] and "outputs       x\\x0a\\x1b[31m" in lines
