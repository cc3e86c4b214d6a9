"""What `transformers` gives, written to a file: run in the environment that has it, which has nothing of ours.

A process of its own also because PyTorch and TensorFlow abort when both are loaded into one.

    python run_transformers.py draw FOLDER          from FOLDER/vocab.json, ["[PAD]", …]
    python run_transformers.py run FOLDER IN OUT    from ["a text", …] to an .npz file
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer, BertConfig, BertModel, BertTokenizer

MAX_SEQ_LENGTH = 128


def draw(folder: Path) -> None:
  """Makes the folder a cased BERT with random weights, 4 layers of 64, saved as transformers saves one."""
  vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
  config = BertConfig(
    vocab_size=len(vocabulary),
    hidden_size=64,
    num_hidden_layers=4,
    num_attention_heads=4,
    intermediate_size=256,
    max_position_embeddings=MAX_SEQ_LENGTH,
    initializer_range=0.3,  # with the usual 0.02 all texts get nearly the same vector
  )
  torch.manual_seed(0)
  BertModel(config).save_pretrained(folder)
  ids = {token: i for i, token in enumerate(vocabulary)}
  BertTokenizer(vocab=ids, do_lower_case=False).save_pretrained(folder)


def run(folder: Path, texts: list[str]) -> dict[str, np.ndarray]:
  """Returns `input_ids` and `attention_mask` [N, T], `pooler` [N, H], and `cls` and `mean` [L + 1, N, H] by layer."""
  tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder, dtype=torch.float32)
  tokens = tokenizer(texts, padding=True, truncation=True, max_length=MAX_SEQ_LENGTH, return_tensors="pt")
  with torch.no_grad():
    output = model.eval()(**tokens, output_hidden_states=True)
  mask = tokens["attention_mask"].double()[:, :, None]
  means = [(hidden.double() * mask).sum(1) / mask.sum(1) for hidden in output.hidden_states]
  tensors = {
    "input_ids": tokens["input_ids"],
    "attention_mask": tokens["attention_mask"],
    "pooler": output.pooler_output,
    "cls": torch.stack([hidden[:, 0] for hidden in output.hidden_states]),
    "mean": torch.stack(means),
  }
  return {name: tensor.numpy() for name, tensor in tensors.items()}


if __name__ == "__main__":
  what, folder, *paths = sys.argv[1:]
  if what == "draw":
    draw(Path(folder))
  else:
    np.savez(paths[1], **run(Path(folder), json.loads(Path(paths[0]).read_text(encoding="utf-8"))))
