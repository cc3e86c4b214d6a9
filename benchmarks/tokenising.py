"""How fast texts become tokens, beside Hugging Face's `tokenizers` alone on the whole text.

  python -m benchmarks.tokenising VOCABULARY FILE [--max-seq-length 256]

FILE has a document a line (texts.py). Both take the same texts by turns, so many at a time as
reading does. `whole` is what ours would cost without looking only as far as is needed; with short texts the ratio is
the price of Google's exact tokens. Results go to benchmarks/results/, one entry for each FILE.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from benchmarks.measure import add_results, alternate, timed
from benchmarks.texts import read_lines
from transforms.wordpiece import TokenizerSettings, Wordpiece, parse_vocabulary

AT_ONCE = 1024


def load(vocabulary: Path, max_seq_length: int) -> Wordpiece:
  """Returns a tokeniser of ours that lower-cases and strips accents."""
  tokens = parse_vocabulary(vocabulary.read_bytes(), str(vocabulary))
  return Wordpiece(tokens, TokenizerSettings(True, True), max_seq_length)


def each(texts: Sequence[str], tokenise: Callable[[Sequence[str]], object]) -> float:
  """Returns the seconds that all texts take."""
  return timed(lambda: [tokenise(texts[i : i + AT_ONCE]) for i in range(0, len(texts), AT_ONCE)])


def main() -> None:
  """Measures one file and adds it to the results."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("vocabulary", type=Path)
  parser.add_argument("texts", type=Path)
  parser.add_argument("--max-seq-length", type=int, default=256)
  parser.add_argument("--rounds", type=int, default=5)
  args = parser.parse_args()
  ours = load(args.vocabulary, args.max_seq_length)
  texts = read_lines(args.texts)
  peer = make_peer(parse_vocabulary(args.vocabulary.read_bytes(), str(args.vocabulary)), args.max_seq_length)
  rivals = {"ours": partial(each, texts, ours.tokenise), "whole": partial(each, texts, peer)}
  rivals["ours"](), rivals["whole"]()
  found = {name: len(texts) / timing.median for name, timing in alternate(rivals, args.rounds).items()}
  figures = {"documents": len(texts), "characters": sum(map(len, texts)), **{k: round(v) for k, v in found.items()}}
  print(json.dumps({args.texts.name: figures}))
  add_results("tokenising", "documents_per_second", args.texts.name, figures)


def make_peer(vocabulary: Sequence[str], max_seq_length: int) -> Callable[[Sequence[str]], object]:
  """Returns `tokenizers` with BERT's parts as they come, which cuts after it has looked at the whole text."""
  from tokenizers import BertWordPieceTokenizer

  peer = BertWordPieceTokenizer({token: i for i, token in enumerate(vocabulary)}, lowercase=True)
  peer.enable_truncation(max_seq_length)
  return lambda texts: [encoding.ids for encoding in peer._tokenizer.encode_batch_fast(texts)]


if __name__ == "__main__":
  main()
