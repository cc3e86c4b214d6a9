"""Every layer of an XLNet in both layouts is what `transformers` on PyTorch gives: `make test-transformers`."""

import subprocess
from itertools import product

import numpy as np
import pytest

from pipeline.model.read_checkpoint import read_checkpoint
from pipeline.model.xlnet_graph import build_graph
from pipeline.model.xlnet_numpy import layer_outputs
from tests.conftest import REPOSITORY
from tests.tiny_sentence_piece import tiny_bytes, tiny_model
from tests.tiny_xlnet import write_google_xlnet, write_hugging_face_xlnet
from transforms.encoder_spec import Readout
from transforms.frozen_graph import FrozenGraph

PEER = REPOSITORY / ".venv-transformers" / "bin" / "python"
pytestmark = pytest.mark.skipif(
  not (PEER.parent.parent / "ready").exists(),
  reason="needs PyTorch and transformers, which have an environment of their own: make test-transformers",
)

TOLERANCE = 2e-5
V = len(tiny_model())
SIZES = ({}, {"hidden_size": 48, "heads": 4, "layers": 3}, {"hidden_size": 64, "heads": 1, "layers": 1})
CONFIGS = [
  {"untie_r": untie_r, "ff_activation": activation, "clamp_len": clamp, **sizes}
  for untie_r, activation, clamp, sizes in product((True, False), ("gelu", "relu", "tanh"), (-1, 5), SIZES)
]
# Each batch alone, and several lengths padded to the longest.
LENGTHS = ((1,), (2,), (3,), (7,), (64,), (64, 17, 1, 2, 33), (9, 8, 7, 6))


def batches():
  """Ids, mask and types by the peer's names; padding on the left, <cls> of segment 2."""
  generator, found = np.random.default_rng(5), {}
  for i, lengths in enumerate(LENGTHS):
    T = max(lengths)
    mask = (np.arange(T) >= T - np.array(lengths)[:, None]).astype(np.int32)
    types = np.where(mask == 1, 0, 4)
    types[:, -1] = 2
    found |= {f"ids{i}": generator.integers(0, V, mask.shape).astype(np.int32), f"mask{i}": mask, f"types{i}": types}
  return found


@pytest.fixture(scope="module")
def peers(tmp_path_factory):
  """For each configuration the folder of either layout, and the peer's layers."""
  folder, given = tmp_path_factory.mktemp("xlnet"), batches()
  for i, config in enumerate(CONFIGS):
    write_hugging_face_xlnet(folder / f"h{i}", tiny_bytes(), vocab_size=V, seed=i, **config)
    write_google_xlnet(folder / f"g{i}", tiny_bytes(), vocab_size=V, seed=i, **config)
    np.savez(folder / f"h{i}" / "batches.npz", **given)
  script = REPOSITORY / "tests/integration/run_transformers_xlnet.py"
  subprocess.run([PEER, script, *(folder / f"h{i}" for i in range(len(CONFIGS)))], check=True)
  return folder, given


@pytest.mark.parametrize("i", range(len(CONFIGS)), ids=lambda i: "-".join(map(str, CONFIGS[i].values())))
def test_every_layer_is_that_of_transformers(peers, i):
  folder, given = peers
  with np.load(folder / f"h{i}" / "peer.npz") as file:
    peer = dict(file)
  activation = "gelu_erf" if CONFIGS[i]["ff_activation"] == "gelu" else None  # as Hugging Face means it
  for name in ("h", "g"):
    checkpoint = read_checkpoint(str(folder / f"{name}{i}"), activation=activation)
    config, L, H = checkpoint.config, checkpoint.config.layers, checkpoint.config.hidden_size
    graph = FrozenGraph(*build_graph(checkpoint.variables, config, Readout("mean", tuple(range(L + 1)), "concat")))
    for j in range(len(LENGTHS)):
      ids, mask, expected = given[f"ids{j}"], given[f"mask{j}"], peer[f"layers{j}"]
      found = graph.encode_tokens(ids, mask).reshape(*ids.shape, L + 1, H).transpose(2, 0, 1, 3)
      np.testing.assert_allclose(found[:, mask == 1], expected[:, mask == 1], rtol=0, atol=TOLERANCE)
      for row, own in zip(ids, mask == 1, strict=True):
        alone = np.array(list(layer_outputs(checkpoint.variables, config, row[own], L)))
        theirs = expected[:, (ids == row).all(1) & (mask == own).all(1)][:, 0][:, own]
        np.testing.assert_allclose(alone, theirs, rtol=0, atol=TOLERANCE)
