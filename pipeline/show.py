"""Say what a run did and what a dataset holds: tables for people, dictionaries for `--json`."""

import datetime
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from pipeline.dataset import Dataset
from pipeline.log_lines import local_time
from transforms.drift import NEIGHBOURS, NEIGHBOURS_WARNING
from transforms.errors import UsageError
from transforms.long_texts import CHUNKS, HEAD_TAIL, TRUNCATE, WINDOWS, Documents

# Of all tokens; English text under its own vocabulary has well under 1 %.
UNKNOWN_WARNING = 0.05
# Of all written documents.
TRUNCATED_WARNING = 0.5
# With fewer documents for each component that it keeps, a whitening is of these documents rather than of their kind.
DOCUMENTS_PER_COMPONENT = 10
_CHANGES = ("new", "changed", "unchanged", "gone")


def describe_dataset(dataset: Dataset, run_id: str | None = None) -> dict[str, Any]:
  """Returns what `sorbus show --json` prints: the published run, all runs, and the manifest of one.

  Args:
    dataset: an open dataset.
    run_id: the run to show; the published one by default, or else the newest that finished.
  """
  published = dataset.published()
  finished = [i for i in dataset.run_ids() if dataset.storage.exists(f"runs/{i}/manifest.json")]
  shown = run_id or (published.run_id if published else finished[-1] if finished else None)
  return {
    "kind": "dataset",
    "dataset": dataset.storage.root,
    "published": published.run_id if published else None,
    "runs": [_run_line(dataset, i, published.run_id if published else None, i in finished) for i in dataset.run_ids()],
    "run": dataset.manifest(shown) if shown else None,
  }


def _run_line(dataset: Dataset, run_id: str, published: str | None, finished: bool) -> dict[str, Any]:
  unknown = {"run_id": run_id, "written": None, "rejected": None, "finished": None}
  if not finished:
    return unknown | {"status": "unfinished"}
  try:
    manifest = dataset.manifest(run_id)
  except UsageError:  # one old run must not hide the others; `--run` tells what is wrong with it
    return unknown | {"status": "damaged"}
  counts = manifest["counts"]
  return {
    "run_id": run_id,
    "status": "published" if run_id == published else "kept" if passed(manifest) else "held back",
    "written": counts["written"],
    "rejected": sum(counts["rejected"].values()),
    "finished": manifest["finished"],
  }


def passed(manifest: Mapping[str, Any]) -> bool:
  """Says whether every verdict on a run allows it to be published."""
  return all(verdict["passed"] for verdict in manifest["verdicts"].values())


def show_dataset(description: Mapping[str, Any], console: Console) -> None:
  """Prints what a dataset holds: its runs, and one of them in full."""
  console.print(Text(description["dataset"], style="bold"), soft_wrap=True)
  table = Table(_whole("run"), "status", _numbers("written"), _numbers("rejected"), "finished", box=None)
  for line in description["runs"]:
    numbers = ("" if line[key] is None else f"{line[key]:,}" for key in ("written", "rejected"))
    finished = local_time(datetime.datetime.fromisoformat(line["finished"])) if line["finished"] else ""
    table.add_row(line["run_id"], line["status"], *numbers, finished)
  console.print(table)
  if description["run"] is None:
    raise UsageError(f"{description['dataset']}: no run has finished yet; run `sorbus embed` again to carry on")
  newest = description["runs"][-1]
  if newest["status"] != "published" and newest["run_id"] != description["run"]["run_id"]:
    console.print(Text(_describe_newest(newest)), soft_wrap=True)
  console.print()
  show_run(description["run"], console)


def _describe_newest(newest: Mapping[str, Any]) -> str:
  """Returns what to say of a newest run that is not the one shown."""
  run_id, status = newest["run_id"], newest["status"]
  if status == "unfinished":
    return f"the newest run, {run_id}, is unfinished: it is being made, or `sorbus embed` carries on with what it has"
  what = "not published, or no more" if status == "kept" else status
  return f"the newest run is {what}: --run {run_id} shows it"


def show_run(manifest: Mapping[str, Any], console: Console) -> None:
  """Prints what a run did: counts that add up, rates, whitening, and each verdict that said no."""
  counts, wrote = manifest["counts"], "refused" not in manifest["whitening"]
  console.print(Text(f"run {manifest['run_id']}", style="bold"))
  table = Table("what", _numbers("documents"), "", box=None, show_header=False)
  for name in ("read", "written", *_CHANGES, "distinct", "encoded", "reused", "truncated"):
    known = wrote or name not in ("written", "truncated", *_CHANGES)  # these are known of what was written only
    indent = "  " if name in _CHANGES else ""
    table.add_row(f"{indent}{name}", f"{counts[name]:,}" if known else "–", _note(name, manifest) if known else "")
  for name, number, note in _rejected(manifest):
    table.add_row(name, f"{number:,}", Text(note))
  table.add_row("took", f"{_seconds(manifest):,}", "seconds")
  console.print(table)
  # Not wrapped: a line is what people grep for, and a terminal wraps by itself.
  console.print(Text(_describe_encoder(manifest)), soft_wrap=True)
  if line := describe_long_texts(manifest):
    console.print(Text(line), soft_wrap=True)
  console.print(Text(_describe_whitening(manifest)), soft_wrap=True)
  if line := describe_vectors(manifest):
    console.print(Text(line), soft_wrap=True)
  for line in describe_drift(manifest):
    console.print(Text(line, style="yellow" if line.startswith("warning:") else ""), soft_wrap=True)
  if "replay" in manifest:
    console.print(Text(_describe_replay(manifest["replay"])), soft_wrap=True)
  for warning in (*describe_warnings(manifest), *_problem(manifest)):
    console.print(Text(f"warning: {warning}", style="yellow"), soft_wrap=True)
  for name, verdict in manifest["verdicts"].items():
    if not verdict["passed"]:
      # Not "not published": a person may have published it all the same, which its manifest does not say.
      console.print(Text(f"held back ({name}): {verdict['finding']}", style="bold red"), soft_wrap=True)


def unknown_warning(unknown: int, tokens: int) -> str | None:
  """Returns what to tell a person if too many tokens are unknown."""
  if not tokens or unknown / tokens <= UNKNOWN_WARNING:
    return None
  return f"{unknown / tokens:.0%} of the tokens are unknown to the encoder: is its vocabulary for this language?"


def _rejected(manifest: Mapping[str, Any]) -> Iterator[tuple[str, int, str]]:
  """Yields (what, how many, where or why) of what is not in the output."""
  counts = manifest["counts"]
  rejected = counts["rejected"]
  yield "rejected", sum(rejected.values()), f"in runs/{manifest['run_id']}/rejected/" if rejected else ""
  for reason, number in rejected.items():
    yield f"  {reason}", number, ""
  if counts["bad_files"]:
    yield "bad files", counts["bad_files"], "; ".join(manifest["bad_files"])


def describe_warnings(manifest: Mapping[str, Any]) -> Iterator[str]:
  """Yields what a person should look into before the vectors are used."""
  counts = manifest["counts"]
  if warning := unknown_warning(counts["unknown_tokens"], counts["tokens"]):
    yield warning
  encoder = manifest["encoder"]
  length, positions = encoder.get("max_seq_length"), encoder.get("max_position_embeddings")  # an older one has none
  if warning := truncation_warning(counts["truncated"] / max(counts["written"], 1), length, positions):
    yield warning
  if warning := few_documents_warning(manifest["whitening"]):
    yield warning


def truncation_warning(share: float, length: int | None, positions: int | None) -> str | None:
  """Returns what to tell a person if too large a share of the documents is cut.

  Args:
    share: of the documents.
    length: the encoder's max_seq_length.
    positions: that the model has; None where nobody knows.
  """
  if share <= TRUNCATED_WARNING:
    return None
  at = f"{share:.0%} of the documents are cut at the encoder's max_seq_length"
  at += "" if length is None else f", {length} tokens"
  whole, larger = "take all of each by --long-texts windows or chunks", "freeze with a larger --max-seq-length"
  if length is None or positions is None:
    return f"{at}; {whole}, or {larger}"
  if length < positions:
    return f"{at}; {whole}, or {larger}: the model has {positions} positions"
  return f"{at}, as many as the model has positions; {whole}"


def few_documents_warning(whitening: Mapping[str, Any]) -> str | None:
  """Returns what to tell a person if a whitening, fitted here or reused, was fitted on too few documents."""
  if not whitening.get("count"):  # none, a file that does not tell, or none could be fitted
    return None
  N, K = whitening["count"], whitening["n_components"]
  if N >= DOCUMENTS_PER_COMPONENT * K:
    return None
  fewer = max(N // DOCUMENTS_PER_COMPONENT, 1)
  return (
    f"{N:,} documents are few to fit a whitening of {K} components: below {DOCUMENTS_PER_COMPONENT} for each, all "
    "documents come out nearly orthogonal, whatever they say; "
    f"`sorbus rewhiten DATASET --n-components {fewer}` takes fewer, and `sorbus rewhiten DATASET` fits anew once "
    "there are more documents"
  )


def _problem(manifest: Mapping[str, Any]) -> Iterator[str]:
  """Yields why the run's changes may not be all."""
  problem = (manifest.get("changes") or {}).get("problem")
  if problem:
    yield f"what is gone is not fully known, as the run before could not be read: {problem}"


def _seconds(manifest: Mapping[str, Any]) -> int:
  started, finished = (datetime.datetime.fromisoformat(manifest[key]) for key in ("started", "finished"))
  return round((finished - started).total_seconds())


def _describe_replay(replay: Mapping[str, Any]) -> str:
  begin = f"replay of run {replay['run_id']}: "
  if "problem" in replay:
    return f"{begin}what became of its rejected documents cannot be told: {replay['problem']}"
  still = replay["still_rejected"]
  listed = ", ".join(f"{n:,} {reason}" for reason, n in sorted(still.items(), key=lambda item: -item[1]))
  reasons = f" ({listed})" if still else ""
  return (
    f"{begin}of {replay['rejected']:,} rejected documents {replay['written']:,} are written now, "
    f"{sum(still.values()):,} still rejected{reasons}, {replay['gone']:,} gone from the input"
  )


def _numbers(header: str) -> Column:
  return Column(header, justify="right", overflow="fold")


def _whole(header: str) -> Column:
  """A column whose values are copied, so that none of it may be left out."""
  return Column(header, overflow="fold")


def _note(name: str, manifest: Mapping[str, Any]) -> str:
  """Returns the rate of the stage that a count belongs to, per second that a thread was busy with it."""
  counts, seconds = manifest["counts"], manifest["seconds"]
  if name == "read":
    rate, rows = _rate(counts["read"], seconds["read"]), describe_rows(manifest)
    return rate if rows == "documents" else f"{rows}; {rate}".removesuffix("; ")
  if name == "written":
    return _rate(counts["written"], seconds["write"])
  if name == "changed" and counts["changed"] and not counts["unchanged"]:
    return "all: by their texts, or by a new whitening, encoder or vector type"
  if name == "gone" and manifest["changes"]["against"]:
    return f"since run {manifest['changes']['against']}"
  if name == "encoded" and counts["encoded_tokens"]:
    filled = counts["encoded_tokens"] / counts["computed_tokens"]
    tokens = f"{counts['encoded_tokens'] / max(seconds['encode'], 1e-9):,.0f} tokens/s"
    return f"{_rate(counts['encoded'], seconds['encode'])}, {tokens}; {1 - filled:.1%} padding"
  return ""


def describe_rows(manifest: Mapping[str, Any]) -> str:
  """Returns of what the counts of a run are."""
  documents = Documents.of(manifest["counts"], manifest.get("long_texts"))
  return "documents" if documents is None else f"chunks of {documents.read:,} documents"


def _rate(number: int, seconds: float) -> str:
  return f"{number / seconds:,.0f}/s and thread" if seconds > 0 and number else ""


def _describe_encoder(manifest: Mapping[str, Any]) -> str:
  encoder, threshold = manifest["encoder"], manifest["options"].get("threshold")
  name = encoder["url"].rstrip("/").rpartition("/")[2]
  line = f"encoder {name} ({encoder['fingerprint'][:12]})"
  if (precision := encoder.get("precision", "float32")) != "float32":
    line += f", precision {precision}"
  if encoder.get("head"):
    line += f", head {encoder['head']} over {len(encoder.get('labels', ())):,} labels"
    line += "" if threshold is None else f", threshold {threshold:g}"
  return line


def describe_long_texts(manifest: Mapping[str, Any]) -> str | None:
  """Returns what was done with texts that are too long; None where they were cut, which `truncated` says.

  How many vectors are of windows or of both ends is known of what was written only.
  """
  found = manifest.get("long_texts") or {"mode": TRUNCATE}
  mode, counts = found["mode"], manifest["counts"]
  if mode == TRUNCATE or (mode != CHUNKS and "refused" in manifest["whitening"]):
    return None
  long, room = f"{found['long']:,}", found["room"]
  if mode == HEAD_TAIL:
    return f"long texts head-tail: {long} have more than {room:,} tokens, of which the first and the last were taken"
  every = f"of at most {room:,} tokens" + (f", one every {found['stride']:,}" if found["stride"] < room else "")
  if mode == WINDOWS:
    return f"long texts windows: {long} are averages over windows {every}"
  documents = Documents.of(counts, found)
  assert documents is not None, found
  return f"long texts chunks: {long} of {documents.read:,} texts were cut into {found['chunks']:,} chunks {every}"


def _describe_whitening(manifest: Mapping[str, Any]) -> str:
  whitening = manifest["whitening"]
  if "refused" in whitening:
    return "whitening: none could be fitted"
  kept, asked = whitening["kept_variance"], whitening["asked"]
  is_own = asked == "fit" or whitening.get("fitted_by") == manifest["run_id"]
  share = "" if kept is None else f", {kept:.1%} of the variance kept"
  how = f"{asked}, fitted anew" if asked == "reuse" and is_own else asked
  line = f"whitening {how}: {whitening['hidden_size']} → {whitening['n_components']} components{share}"
  if kept is None or is_own:
    return line
  of_run = f" of run {whitening['fitted_by']}" if whitening.get("fitted_by") else ""
  return f"{line}; fitted on {whitening['count']:,} documents{of_run}"


def describe_vectors(manifest: Mapping[str, Any]) -> str | None:
  """Returns what vectors are stored as, where that is not float32."""
  vectors = manifest.get("vectors", {"type": "float32"})
  if vectors["type"] == "float32":
    return None
  clipped = f"; {vectors['clipped']:,} values lay beyond their range and were clipped" if vectors["clipped"] else ""
  return f"vectors are stored as {vectors['type']}{clipped}"


def describe_drift(manifest: Mapping[str, Any]) -> Iterator[str]:
  """Yields what a person is told of a run's drift; a warning only while the drifted whitening is in use."""
  drift, whitening = manifest.get("drift"), manifest["whitening"]
  if drift is None:
    return
  mean, covariance = ("unknown" if drift[key] is None else f"{drift[key]:.3f}" for key in ("mean", "covariance"))
  fitted_by = drift.get("fitted_by") or drift["against"]  # from a file, or of an older manifest
  line = f"drift under the whitening of run {fitted_by}: mean {mean}, covariance {covariance}; "
  if drift["neighbours"] is None:
    yield f"{line}neighbours unknown ({drift['reason']})"
    return
  share = drift["neighbours"]
  yield f"{line}a new fit changes {share:.1%} of the {NEIGHBOURS} nearest neighbours of {drift['sample']:,} texts"
  if whitening["asked"] != "reuse":
    return
  if whitening.get("fitted_by") == manifest["run_id"]:
    yield "fitted anew, since that is above --refit-above: vectors cannot be compared with those of older runs"
  elif share > NEIGHBOURS_WARNING:
    yield (
      f"warning: the corpus has drifted from its whitening (above {NEIGHBOURS_WARNING:.0%}): fit anew with "
      "`sorbus rewhiten DATASET`, or with --whitening fit on the next run"
    )
