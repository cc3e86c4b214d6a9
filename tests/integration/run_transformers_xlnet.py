"""What XLNet in `transformers` gives, written to files: run in the environment that has it, which has nothing of ours.

    python run_transformers_xlnet.py FOLDER ...     FOLDER/batches.npz to FOLDER/peer.npz

A batch i is `ids{i}`, `mask{i}` and `types{i}`, [B, T] each; what comes of it `layers{i}`, [L + 1, B, T, H].
"""

import sys
from pathlib import Path

import numpy as np
import torch
from transformers import XLNetModel


def run(folder: Path) -> dict[str, np.ndarray]:
  """Returns the layers of every batch."""
  model, loading = XLNetModel.from_pretrained(folder, output_loading_info=True, dtype=torch.float32)
  assert not loading["missing_keys"], loading
  with np.load(folder / "batches.npz") as file:
    batches = {name: torch.from_numpy(value) for name, value in file.items()}
  layers = {}
  for i in range(len(batches) // 3):
    with torch.no_grad():
      output = model.eval()(
        input_ids=batches[f"ids{i}"].long(),
        attention_mask=batches[f"mask{i}"].float(),
        token_type_ids=batches[f"types{i}"].long(),
        output_hidden_states=True,
        use_mems=False,
      )
    layers[f"layers{i}"] = torch.stack(output.hidden_states).numpy()
  return layers


if __name__ == "__main__":
  for name in sys.argv[1:]:
    np.savez(Path(name) / "peer.npz", **run(Path(name)))
