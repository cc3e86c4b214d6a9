"""Print what a word means in each of several texts: how like the whole text it is, and how like itself elsewhere.

python examples/words_in_context.py ENCODER_DIR WORD TEXT TEXT ...
"""

import sys

import numpy as np

from transforms.encoder import Encoder, load_encoder
from transforms.errors import SorbusError


def word_vectors(encoder: Encoder, word: str, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
  """Returns the word's unit vectors [N, C] in N texts, where it stands first, and its similarities [N] to them."""
  spans = [(start, start + len(word)) for start in (text.index(word) for text in texts)]
  found = [encoder.encode_spans(text, [span]) for text, span in zip(texts, spans, strict=True)]
  vectors = np.vstack([one.vectors for one in found])
  unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
  return unit, np.concatenate([one.similarities for one in found])


def main(encoder_dir: str, word: str, texts: list[str]) -> None:
  """Prints a line for each text."""
  unit, to_text = word_vectors(load_encoder(encoder_dir), word, texts)
  print("to its text   to itself in each text")
  for similarity, to_others, text in zip(to_text, unit @ unit.T, texts, strict=True):
    print(f"{similarity:11.2f}  ", *(f"{value:.2f}" for value in to_others), f" {text}")


if __name__ == "__main__":
  if len(sys.argv) < 4:
    sys.exit(__doc__)
  if without := [text for text in sys.argv[3:] if sys.argv[2] not in text]:
    sys.exit(f"{sys.argv[2]!r} does not stand in {without[0]!r}")
  try:
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
  except (SorbusError, ValueError) as error:
    sys.exit(f"error: {error}")
