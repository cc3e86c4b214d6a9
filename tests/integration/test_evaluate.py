"""`sorbus evaluate` by the command line: STS-B against a separate computation, and what it says where it cannot."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from pipeline.command_line import main
from pipeline.dataset import Dataset
from pipeline.model.bert_numpy import bert_vector
from pipeline.model.freeze import FreezeOptions, freeze
from pipeline.model.read_checkpoint import read_checkpoint
from tests.integration.run_files import NIGHT
from tests.plain_wordpiece import plain_tokens
from tests.tiny_bert import WORDS, write_google_checkpoint
from transforms.encoder_spec import Readout


def run(capsys, *argv):
  """Returns the exit code and what is printed, without progress."""
  capsys.readouterr()
  code = main(["evaluate", *argv])
  out, error = capsys.readouterr()
  return code, out if code == 0 else error.splitlines()[-1].removeprefix("sorbus: error: ")


def run_json(capsys, *argv):
  code, out = run(capsys, *argv, "--json")
  assert code == 0, out
  return json.loads(out)


# STS-B, computed a second time with nothing of ours but the variables of the checkpoint.


def spearman(vectors, pairs):
  first, second = (np.array([vectors[pair[i]] for pair in pairs]) for i in (0, 1))
  cosines = (first * second).sum(1) / np.linalg.norm(first, axis=1) / np.linalg.norm(second, axis=1)
  scores = [float(pair[2]) for pair in pairs]
  return stats.spearmanr(cosines, scores)[0], stats.pearsonr(cosines, scores)[0]


def blog_whitened(vectors, pairs, n_components):
  """As the code of the whitening paper has it: of both texts of each pair, by a singular value decomposition."""
  every = np.array([vectors[text] for pair in pairs for text in pair[:2]])
  mean = every.mean(axis=0)
  u, s, _ = np.linalg.svd(np.cov((every - mean).T))
  kernel = (u / np.sqrt(s))[:, :n_components]
  return {text: (vector - mean) @ kernel for text, vector in vectors.items()}


def test_spearman_on_sts_b_is_that_of_numpy_and_scipy(shared_data, tmp_path, capsys):
  folder = shared_data / "checkpoints/bert_tiny_uncased_L-2_H-128_A-2"
  path = shared_data / "sts/stsb/stsb-en-dev.csv"
  freeze(str(folder), str(tmp_path / "e"), FreezeOptions(pooling="mean", layers=(-1,)), lambda line: None)
  found = run_json(capsys, str(tmp_path / "e"), "--pairs", str(path), "--n-components", "64")["encoders"][0]

  with path.open(encoding="utf-8", newline="") as file:
    pairs = list(csv.reader(file))
  checkpoint = read_checkpoint(str(folder))
  ids = {token: i for i, token in enumerate((folder / "vocab.txt").read_text(encoding="utf-8").split("\n"))}
  vectors = {}
  for text in {text for pair in pairs for text in pair[:2]}:
    tokens = ["[CLS]", *plain_tokens(text, ids, lowercase=True), "[SEP]"]
    vectors[text] = bert_vector(
      checkpoint.variables, checkpoint.config, [ids[t] for t in tokens], Readout("mean", (2,))
    )
  assert (found["pairs"], found["texts"], found["left_out"], found["truncated"]) == (1500, len(vectors), 0, 0)
  assert (found["layers"], found["pooling"], found["precision"]) == ([2], "mean", "float32")
  for kind, expected in (("raw", vectors), ("whitened", blog_whitened(vectors, pairs, 64))):
    assert (found[kind]["spearman"], found[kind]["pearson"]) == pytest.approx(spearman(expected, pairs), abs=1e-4)
  assert found["raw"]["spearman"] == pytest.approx(0.6974, abs=1e-4)  # a figure of docs/evaluating.md


# A random encoder, on any machine.


def sentences(n, seed=0):
  generator = np.random.default_rng(seed)
  return [" ".join(generator.choice(WORDS, generator.integers(3, 9))) for _ in range(n)]


@pytest.fixture(scope="module")
def pairs_file(tmp_path_factory):
  """Two hundred pairs, scored by the share of words that they have in common."""
  path = tmp_path_factory.mktemp("pairs") / "pairs.tsv"
  with path.open("w") as file:
    for first, second in zip(sentences(200, 1), sentences(200, 2), strict=True):
      one, other = set(first.split()), set(second.split())
      file.write(f"{first}\t{second}\t{len(one & other) / len(one | other):.3f}\n")
  return str(path)


def test_several_encoders_have_a_row_each_and_the_best_is_marked(tiny_encoder, other_encoder, pairs_file, capsys):
  argv = [tiny_encoder, other_encoder, "--pairs", pairs_file, "--n-components", "16"]
  found = run_json(capsys, *argv)
  assert [encoder["encoder"] for encoder in found["encoders"]] == [tiny_encoder, other_encoder]
  scores = [encoder[kind]["spearman"] for encoder in found["encoders"] for kind in ("raw", "whitened")]
  assert len(set(scores)) == 4
  _, out = run(capsys, *argv)
  rows = [line.split() for line in out.splitlines()[1:5]]
  assert [float(row[3]) for row in rows] == pytest.approx(scores, abs=1e-4)
  assert [row[-1] == "*" for row in rows] == [score == max(scores) for score in scores]
  assert [row[1:3] for row in rows] == [["raw", "32"], ["whitened", "16"]] * 2
  assert out.count("whitening fitted on these texts; its 16 components keep") == 2


def test_labels_have_an_area_and_thresholds(tiny_encoder, tmp_path, capsys):
  path = tmp_path / "labels.jsonl"
  texts = sentences(60)
  pairs = [(a, a, 1) for a in texts[:20]] + [(a, b, 0) for a, b in zip(texts[20:40], texts[40:], strict=True)]
  path.write_text("".join(json.dumps({"sentence1": a, "sentence2": b, "score": y}) + "\n" for a, b, y in pairs))
  raw = run_json(capsys, tiny_encoder, "--pairs", str(path), "--whitening", "none")["encoders"][0]["raw"]
  assert raw["auc"] == raw["accuracy"]["value"] == raw["f1"]["value"] == 1.0
  _, out = run(capsys, tiny_encoder, "--pairs", str(path), "--whitening", "none")
  assert "AUC" in out and "1.000 at " in out


def test_a_text_without_a_token_takes_its_pair_along_and_it_is_said(tiny_encoder, pairs_file, tmp_path, capsys):
  path = tmp_path / "pairs.tsv"
  path.write_text(f"{Path(pairs_file).read_text()} \tthe rain\t0.5\n")
  whole, found = (run_json(capsys, tiny_encoder, "--pairs", str(p))["encoders"][0] for p in (pairs_file, path))
  assert (whole["pairs"], whole["left_out"], found["pairs"], found["left_out"]) == (200, 0, 200, 1)
  assert found["raw"] == whole["raw"]
  assert "1 left out, as a text has no token" in run(capsys, tiny_encoder, "--pairs", str(path))[1]


def test_a_sample_is_the_same_each_time(tiny_encoder, pairs_file, capsys):
  argv = [tiny_encoder, "--pairs", pairs_file, "--sample", "50", "--n-components", "8"]
  found = run_json(capsys, *argv)
  assert found["encoders"][0]["pairs"] == 50 and found == run_json(capsys, *argv)


def test_a_whitening_of_a_dataset_or_of_its_file_is_the_same(tiny_encoder, other_encoder, pairs_file, tmp_path, capsys):
  (tmp_path / "corpus.txt").write_text("".join(f"{text}\n" for text in sentences(300, 3)))
  dataset = str(tmp_path / "dataset")
  command = [*NIGHT, "--input", str(tmp_path / "corpus.txt"), "--encoder", tiny_encoder, "--dataset", dataset]
  assert main([*command, "--n-components", "16", "--threads", "1", "--buckets", "2"]) == 0
  (file,) = (tmp_path / "dataset").glob("runs/*/whitening-*.npz")
  of_dataset, of_file, of_pairs = (
    run_json(capsys, tiny_encoder, "--pairs", pairs_file, *more)["encoders"][0]["whitened"]
    for more in (["--fit-on", dataset, "--n-components", "16"], ["--whitening", str(file)], ["--n-components", "16"])
  )
  assert of_dataset["fitted_on"] == dataset and of_file["loaded_from"] == str(file) and of_file["fitted_on"] is None
  assert of_dataset["spearman"] == pytest.approx(of_file["spearman"], abs=1e-9) != of_pairs["spearman"]
  assert of_dataset["documents"] == 300
  code, error = run(capsys, other_encoder, "--pairs", pairs_file, "--fit-on", dataset)
  assert code == 2 and f"--fit-on {dataset}: its vectors are of encoder" in error and "leave --fit-on out" in error
  code, error = run(capsys, tiny_encoder, "--pairs", pairs_file, "--fit-on", dataset, "--precision", "bfloat16")
  assert code == 2 and error.endswith("add --precision float32")


def test_texts_are_treated_as_the_run_did_that_is_fitted_on(tiny_encoder, pairs_file, tmp_path, capsys):
  (tmp_path / "corpus.txt").write_text("".join(f"{text}\n" for text in sentences(60, 3)))
  dataset = str(tmp_path / "dataset")
  command = [*NIGHT, "--input", str(tmp_path / "corpus.txt"), "--encoder", tiny_encoder, "--dataset", dataset]
  assert main([*command, "--n-components", "16", "--threads", "1", "--long-texts", "windows"]) == 0
  argv = [tiny_encoder, "--pairs", pairs_file, "--n-components", "16"]
  (found,) = run_json(capsys, *argv, "--fit-on", dataset)["encoders"]
  manifest = Dataset.open(dataset).manifest(Dataset.open(dataset).run_ids()[0])
  assert (
    found["fingerprint"] == manifest["encoder"]["fingerprint"] != run_json(capsys, *argv)["encoders"][0]["fingerprint"]
  )
  assert found["whitened"]["documents"] == 60


def test_a_corpus_without_scores_has_isotropy_and_neighbours(tiny_encoder, tmp_path, capsys):
  path = tmp_path / "corpus.txt"
  path.write_text("".join(f"{text}\n" for text in [*sentences(300, 3), " ", "é"]))
  found = run_json(capsys, tiny_encoder, "--corpus", str(path), "--sample", "250", "--n-components", "31")["encoders"][
    0
  ]
  raw, whitened = found["raw"], found["whitened"]
  assert len(raw["spectrum"]) == 32 and raw["rank"] == 31 and 1 < raw["effective_rank"] < 31
  # Fitted on these very texts: all variances are 1, and so are their shares.
  np.testing.assert_allclose(whitened["spectrum"], 1, atol=1e-6)
  assert whitened["effective_rank"] == pytest.approx(31) and whitened["condition_number"] == pytest.approx(1)
  assert abs(whitened["mean_cosine"]) < 0.02 < raw["mean_cosine"] and 0 < whitened["recall_at_10"] < 1
  assert "scored pairs would tell; 249 texts are too few to fit 31 components and" in found["verdict"]
  code, out = run(capsys, tiny_encoder, "--corpus", str(path), "--n-components", "29")
  assert code == 0 and "recall@10" in out and out.rstrip().endswith("scored pairs would tell")


def test_the_best_line_of_a_sweep_is_what_its_encoder_has(pairs_file, tmp_path, capsys):
  checkpoint = str(write_google_checkpoint(tmp_path / "checkpoint", layers=3))
  targets = ["--csv", str(tmp_path / "sweep.csv"), "--plot", str(tmp_path / "sweep.svg")]
  found = run_json(
    capsys, checkpoint, "--pairs", pairs_file, "--sweep", "--max-seq-length", "9", "--n-components", "16", *targets
  )
  with (tmp_path / "sweep.csv").open() as file:
    rows = list(csv.DictReader(file))
  # Raw, and with 16 components: each layer and two averages of mean, of cls without layer 0; of max each layer; pooler.
  assert len(rows) == len(found["lines"]) == 2 * (4 + 2 + 3 + 2 + 4 + 1)
  assert found["options"] == {"max_seq_length": 9}
  assert (tmp_path / "sweep.svg").read_text().count("<!-- 1+3 -->") == 2
  for line in (found["lines"][0], *(line for line in found["lines"] if len(line["layers"]) == 2)):
    pooled = () if line["pooling"] == "pooler" else ("--layers", *map(str, line["layers"]))
    command = ["freeze", checkpoint, str(tmp_path / "encoder"), "--pooling", line["pooling"], *pooled, "--overwrite"]
    assert main([*command, "--max-seq-length", "9"]) == 0
    whitening = (
      ["--whitening", "none"] if line["n_components"] is None else ["--n-components", str(line["n_components"])]
    )
    (encoder,) = run_json(capsys, str(tmp_path / "encoder"), "--pairs", pairs_file, *whitening)["encoders"]
    scores = encoder["raw" if line["n_components"] is None else "whitened"]
    assert scores["spearman"] == pytest.approx(line["spearman"], abs=1e-4)


@pytest.mark.parametrize(
  ("argv", "message"),
  [
    ([], "give either --pairs FILE, with scores, or --corpus GLOB, without (`sorbus evaluate --help`)"),
    (["--pairs", "{pairs}", "--corpus", "a"], "give either --pairs FILE, with scores, or --corpus GLOB, without"),
    (["--corpus", "a", "--columns", "1", "2", "3"], "--columns is for --pairs; leave it out"),
    (["--pairs", "{pairs}", "--no-header"], "--no-header is for --corpus; leave it out"),
    (["--pairs", "{pairs}", "--sample", "2"], "2 pairs of texts with a token are too few to correlate; give more"),
    (["--pairs", "{pairs}", "--sample", "8"], "choose --n-components 14 or less, --whitening none or --whitening PATH"),
    (
      ["--pairs", "{pairs}", "--n-components", "33"],
      "--n-components 33: the encoder's vectors have 32; choose 1 to 32",
    ),
    (["--pairs", "{pairs}", "--whitening", "none", "--n-components", "3"], "there is nothing to reduce"),
    (["--pairs", "{pairs}", "--whitening", "none", "--fit-on", "d"], "--fit-on goes with --whitening fit, not none"),
    (["--pairs", "{pairs}", "--whitening", "no.npz"], "--whitening no.npz: no such file"),
    (["--pairs", "{pairs}", "--csv", "a.csv"], "--csv is for --sweep; leave it out"),
    (["--pairs", "{pairs}", "--lowercase"], "--lowercase is for --sweep; leave it out"),
    (["--corpus", "a", "--sweep"], "--sweep: takes one checkpoint and --pairs FILE; give these"),
    (["b", "--pairs", "{pairs}", "--sweep"], "--sweep: takes one checkpoint and --pairs FILE; give these"),
    (["--pairs", "{pairs}", "--sweep", "--whitening", "none"], "--sweep: every combination has a whitening of its own"),
    (["--pairs", "{pairs}", "--sweep"], "give the checkpoint that it was frozen from"),
    (["--pairs", "{pairs}", "--fit-on", "no"], "no: no Sorbus dataset is there"),
  ],
)
def test_what_cannot_be_evaluated_is_refused_with_a_way_out(tiny_encoder, pairs_file, capsys, argv, message):
  code, error = run(capsys, tiny_encoder, *(word.format(pairs=pairs_file) for word in argv))
  assert code in (1, 2) and message in error
