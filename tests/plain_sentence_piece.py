"""google-research/xlnet's `prepro_utils.py`, its rules written out plainly, for tests to hold ours against.

Slow, and shares nothing with `transforms/sentence_piece.py` but what cuts words into pieces, Google's `sentencepiece`.
"""

import unicodedata


def plain_text(text, settings):
  """What `preprocess_text` makes of a text."""
  if settings.remove_space:
    text = " ".join(text.strip().split())
  text = text.replace("``", '"').replace("''", '"')
  if not settings.keep_accents:
    text = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
  return text.lower() if settings.lowercase else text


def plain_pieces(processor, text, settings):
  """The pieces that `encode_pieces` gives: a number is parted from the comma behind it."""
  pieces = []
  for piece in processor.encode(plain_text(text, settings), out_type=str):
    if len(piece) > 1 and piece[-1] == "," and piece[-2].isdigit():
      number = processor.encode(piece[:-1].replace("▁", ""), out_type=str)
      if piece[0] != "▁" and number[0][0] == "▁":
        number[0] = number[0][1:]
        if not number[0]:
          del number[0]
      pieces += [*number, ","]
    else:
      pieces.append(piece)
  return pieces


def plain_ids(processor, text, settings):
  """The ids of `encode_ids`."""
  return [processor.piece_to_id(piece) for piece in plain_pieces(processor, text, settings)]
