"""The flags of `sorbus freeze`: what an encoder is made of."""

import argparse
from typing import Any

from pipeline.commands import run_freeze


def add_freeze(commands: Any) -> argparse.ArgumentParser:
  p: argparse.ArgumentParser = commands.add_parser(
    "freeze",
    help="make an encoder of a BERT or XLNet checkpoint, or a graph",
    description="Make an encoder folder (frozen graph, vocabulary, settings, self-test) of a BERT or an XLNet:\n"
    "  a Google TF1 checkpoint (a folder, or a prefix such as output/model.ckpt-1200), fine-tuned or not,\n"
    "  a Hugging Face folder (config.json, model.safetensors, and vocab.txt, tokenizer.json or spiece.model),\n"
    "  a sentence-transformers folder (modules.json says pooling and length),\n"
    "  a graph frozen elsewhere (GRAPH.pb, variables as constants), with the --vocab of its weights.\n\n"
    "Which vector? Blog posts that speak of 'the cls vector' often mean the pooler's: the vector of [CLS] after a\n"
    "dense layer with tanh, the graph's node bert/pooler/dense/Tanh. `--pooling cls` is [CLS] before that layer.",
    epilog="Examples:\n"
    "  sorbus freeze uncased_L-12_H-768_A-12 encoder --pooling mean --layers 1 12\n"
    "  sorbus freeze output/model.ckpt-1200 encoder --bert-config chinese_L-12_H-768_A-12/bert_config.json \\\n"
    "      --vocab chinese_L-12_H-768_A-12/vocab.txt\n"
    "  sorbus freeze xlnet_cased_L-12_H-768_A-12 encoder --pooling mean --layers first-last\n"
    "  sorbus freeze frozen.pb encoder --vocab vocab.txt\n"
    "  sorbus freeze frozen.pb encoder --vocab vocab.txt --output bert/encoder/Reshape_13 --pooling mean\n"
    "  sorbus freeze CHECKPOINT encoder --saved-model serving/1 --whitening vectors",
  )
  p.add_argument("checkpoint", metavar="CHECKPOINT", help="folder or checkpoint prefix; or a frozen graph, GRAPH.pb")
  p.add_argument("encoder_dir", metavar="ENCODER_DIR", help="folder to write")
  add_files(p)
  p.add_argument(
    "--pooling",
    choices=("pooler", "cls", "mean", "max", "mean-max", "last"),
    help="how a text's tokens become one vector: mean-max is both, one after the other, and twice as wide; last is the "
    "last token, a BERT's [SEP]; an XLNet has no pooler, and its <cls> is the last; default: what the folder "
    "states; else pooler if the checkpoint has a classifier's output_weights and none of the next three options is "
    "given; else mean",
  )
  p.add_argument(
    "--layers",
    type=_layer,
    nargs="+",
    metavar="LAYER",
    help="hidden layers to pool: 0 is the embedding output, i the i-th block, -1 the last; first-last is 1 and the "
    "last; default: what the folder states, or -2. What lies above the highest is left out: a lower one is faster",
  )
  p.add_argument(
    "--combine",
    choices=("average", "sum", "concat", "fused"),
    help="how several layers become one: concat puts them one after the other, from the lowest up; fused is the mix of "
    "all blocks that the checkpoint has learned (variables layer_logit0, layer_logit1 …): a --head stands on it too; "
    "default: average",
  )
  p.add_argument(
    "--exclude-special-tokens",
    action="store_true",
    help="do not count the [CLS] and [SEP] around a text, or the <sep> <cls> behind it, in --pooling mean, max or "
    "mean-max; padding never counts",
  )
  p.add_argument(
    "--head",
    choices=("softmax", "sigmoid"),
    help="also predict, with the classifier on whole texts that the checkpoint was fine-tuned with (output_weights and "
    "output_bias, or classifier.*): softmax if a text has one label of several, so that the probabilities add up to 1; "
    "sigmoid if each label holds or not by itself, so that a text may have several or none. The checkpoint does not "
    "say which it was trained with, and both give numbers: look into the training script. Not for labels of tokens "
    "(named entities)",
  )
  p.add_argument(
    "--labels",
    metavar="FILE",
    help='names of the head\'s labels: a label a line, a JSON list, {"label": 0, ...} or {"0": "label", ...}; '
    "default: the folder's id2label, else 0, 1, 2 ...",
  )
  add_tokenising(p)
  p.add_argument("--overwrite", action="store_true", help="replace another encoder in ENCODER_DIR")
  _add_graph_ends(p.add_argument_group("a graph frozen elsewhere", _GRAPH_HELP))
  _add_serving(p.add_argument_group("for serving"))
  p.set_defaults(run=run_freeze)
  return p


def add_files(p: Any) -> None:
  """Adds the files that a checkpoint may lack beside it."""
  p.add_argument(
    "--bert-config", metavar="FILE", help="bert_config.json or xlnet_config.json, where it is not beside the checkpoint"
  )
  p.add_argument(
    "--vocab", metavar="FILE", help="vocab.txt or spiece.model, where it is not beside the checkpoint; a graph needs it"
  )


def add_tokenising(p: Any) -> None:
  """Adds what decides the tokens of a text, and how they are computed."""
  p.add_argument(
    "--max-seq-length",
    type=int,
    metavar="T",
    help="tokens with the two special ones, [CLS] and [SEP], or <sep> and <cls>; an XLNet takes any number, for memory "
    "and time that grow with its square; default: the folder's, or 256",
  )
  p.add_argument(
    "--activation",
    choices=("gelu_tanh", "gelu_erf", "relu", "tanh"),
    help="the one that the weights were trained with; Google's code has gelu_tanh, keras-bert gelu_erf",
  )
  p.add_argument(
    "--lowercase",
    action=argparse.BooleanOptionalAction,
    help="lower-case texts; default: by the vocabulary or the folder",
  )
  p.add_argument(
    "--strip-accents",
    action=argparse.BooleanOptionalAction,
    help="drop accents; default: as --lowercase, of an XLNet yes",
  )
  p.add_argument(
    "--tokenize-chinese-chars",
    action=argparse.BooleanOptionalAction,
    help="each ideograph a word of its own; default: yes",
  )


_GRAPH_HELP = (
  "What is not given is found: inputs by their names (input_ids, input_mask, segment_ids and what other tools call\n"
  "them), the output as bert/pooler/dense/Tanh or the only end of the graph; what cannot be told is listed. An output\n"
  "[B, T, H] takes --pooling, by default mean; an output [B, H] is the vector. --layers, --combine, --activation,\n"
  "--bert-config, --head and --labels are for checkpoints: a graph has that in it."
)


def _add_graph_ends(g: Any) -> None:
  g.add_argument("--output", metavar="NODE", help="the vectors, [B, H], or a vector a token, [B, T, H]")
  g.add_argument("--input-ids", metavar="NAME", help="placeholder of the token ids")
  g.add_argument("--input-mask", metavar="NAME", help="placeholder of the mask, 1 on tokens and 0 on padding")
  g.add_argument("--token-type-ids", metavar="NAME", help="placeholder of the token types, which are fed 0")


def _add_serving(g: Any) -> None:
  g.add_argument(
    "--saved-model",
    metavar="OUT",
    help="also write a SavedModel for TensorFlow Serving, which wants a number as its folder's name: serving/1. Its "
    "signature serving_default takes input_ids and input_mask (int32 [B, T]: 1 on tokens, 0 on padding) and gives "
    "vector (float32 [B, W]), and probabilities (float32 [B, labels]) where there is a head. A client tokenises with "
    "OUT/assets.extra. It is loaded again and compared with the encoder before it appears; --overwrite replaces one",
  )
  g.add_argument(
    "--whitening",
    metavar="RUN",
    help="with --saved-model: vector is the published one, whitened, reduced and of length 1, so that a query service "
    "needs nothing else. RUN is DATASET/runs/ID, DATASET for its published run, or a whitening-*.npz; it has to be of "
    "this encoder. Default: vector is the encoder's raw one",
  )


def _layer(text: str) -> int | str:
  try:
    return text if text == "first-last" else int(text)
  except ValueError:
    raise argparse.ArgumentTypeError(
      f"{text!r} is no layer; write several as --layers 1 2, behind CHECKPOINT and ENCODER_DIR"
    ) from None
