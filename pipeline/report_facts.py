"""Gather what a report says of a run, as plain values: from its manifest and a bounded sample of its files. No Beam."""

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pipeline.compare_manifests import Comparison, as_typed, compare
from pipeline.dataset import Dataset
from pipeline.outcome import find_outcome
from pipeline.report_sample import RowSample, raw_vectors, sample_rows, text_columns
from pipeline.report_vectors import Cosines, Map, Spectrum, nearest, plane, random_cosines, spectrum
from pipeline.show import describe_drift, describe_long_texts, describe_rows, describe_vectors, describe_warnings
from transforms.errors import SorbusError, UsageError
from transforms.moments import Moments

N_EXAMPLES = 5  # of each reason
MAX_REJECTED_FILES, MAX_REJECTED_BYTES = 200, 16 << 20  # in which examples are looked for
MAX_INPUTS = 20
N_POINTS = 800
N_QUERIES, N_NEIGHBOURS = 5, 5


@dataclass(frozen=True)
class Sum:
  """A count that has to be the sum of others."""

  name: str
  total: int
  parts: tuple[tuple[str, int], ...]

  @property
  def holds(self) -> bool:
    """Says whether it adds up."""
    return self.total == sum(number for _, number in self.parts)


@dataclass(frozen=True)
class Stage:
  """What a stage did, in seconds that threads were busy with it; `tokens` where it computes on them."""

  name: str
  unit: str
  number: int
  seconds: float
  tokens: int = 0
  padding: float = 0.0


@dataclass(frozen=True)
class Reason:
  """Documents rejected for one reason, and some of them as they stand in rejected/."""

  name: str
  number: int
  examples: tuple[Mapping[str, Any], ...]

  @property
  def is_short(self) -> bool:
    """Says whether some examples are in files that were not looked into, or could not be read."""
    return len(self.examples) < min(N_EXAMPLES, self.number)


@dataclass(frozen=True)
class Neighbours:
  """A document and those nearest to it: (cosine, doc_id, text)."""

  doc_id: str
  text: str
  nearest: tuple[tuple[float, str, str], ...]


@dataclass(frozen=True)
class Facts:
  """All that a report says of one run.

  Attributes:
    status: 'published', 'held back', 'overtaken', 'published before' or 'not published', at the time `made`.
    attention: what a person should look into, a line each.
    sample: of the published rows; None where they cannot be read.
    problems: why something is not there, by its name: 'rows', 'spectrum', 'cosines', 'texts', 'map'.
    points: row of the sample of each point of `map`.
  """

  dataset: str
  made: datetime.datetime
  status: str
  with_texts: bool
  manifest: Mapping[str, Any]
  attention: tuple[str, ...]
  sums: tuple[Sum, ...]
  stages: tuple[Stage, ...]
  reasons: tuple[Reason, ...]
  drift: tuple[str, ...]
  comparison: Comparison | None
  sample: RowSample | None
  text_columns: tuple[str, ...] = ()
  spectrum: Spectrum | None = None
  cosines: Cosines | None = None
  map: Map | None = None
  points: tuple[int, ...] = ()
  neighbours: tuple[Neighbours, ...] = ()
  problems: Mapping[str, str] = field(default_factory=dict)

  @property
  def started(self) -> datetime.datetime:
    """When the run began."""
    return datetime.datetime.fromisoformat(self.manifest["started"])

  @property
  def finished(self) -> datetime.datetime:
    """When its manifest was written."""
    return datetime.datetime.fromisoformat(self.manifest["finished"])

  @property
  def long_texts(self) -> str | None:
    """What was done with texts that are too long; None where they were cut."""
    return describe_long_texts(self.manifest)

  @property
  def rows(self) -> str:
    """Of what the counts are: documents, or chunks of so many of them."""
    return describe_rows(self.manifest)

  @property
  def is_whitened(self) -> bool:
    """Says whether the vectors went through a whitening that changes them."""
    return "refused" not in self.manifest["whitening"] and self.manifest["whitening"]["asked"] != "none"

  @property
  def options(self) -> list[tuple[str, Any]]:
    """What was asked, by the flags that a person types; not what was left out, nor switches that are off."""
    typed = as_typed(self.manifest["options"])
    return sorted((flag, value) for flag, value in typed.items() if value not in (None, []) and value is not False)

  @property
  def inputs(self) -> list[dict[str, Any]]:
    """The input files with most documents, largest first: name, bytes, read, written, rejected."""
    files = [file | by for file, by in zip(self.manifest["inputs"], self.manifest["by_input"], strict=False)]
    return sorted(files, key=lambda file: (-file["read"], file["name"]))[:MAX_INPUTS]


def gather(dataset: Dataset, run_id: str, now: datetime.datetime, *, with_texts: bool = False) -> Facts:
  """Returns the facts of a finished run.

  Args:
    dataset: an open dataset.
    run_id: the run.
    now: when the report is made.
    with_texts: also read texts of documents, rejected and kept.

  Raises:
    UsageError: there is no such run, it did not finish, or its manifest is damaged.
  """
  manifest = dataset.manifest(run_id)
  columns = tuple(text_columns(manifest)) if with_texts else ()
  return Facts(
    dataset=dataset.storage.root,
    made=now,
    status=find_status(dataset, manifest),
    with_texts=with_texts,
    manifest=manifest,
    attention=tuple(find_attention(manifest)),
    sums=find_sums(manifest),
    stages=find_stages(manifest),
    reasons=find_reasons(dataset, manifest, with_texts),
    drift=tuple(describe_drift(manifest)),
    comparison=compare(dataset, manifest),
    text_columns=columns,
    **_of_vectors(dataset, manifest, columns, with_texts),
  )


def find_status(dataset: Dataset, manifest: Mapping[str, Any]) -> str:
  """Returns what has become of a run so far."""
  published = dataset.published()
  if published is not None and published.run_id == manifest["run_id"]:
    return "published"
  outcome = find_outcome(dataset, manifest)
  if outcome is None:
    return "not published"
  return "published before" if outcome.status == "published" else outcome.status


def find_attention(manifest: Mapping[str, Any]) -> list[str]:
  """Returns what a person should look into before the vectors are used."""
  lines = [f"{name}: {v['finding']}" for name, v in manifest["verdicts"].items() if not v["passed"]]
  lines += describe_warnings(manifest)
  if (line := describe_vectors(manifest)) and manifest["vectors"]["clipped"]:
    lines.append(line)
  if manifest["bad_files"]:
    lines.append(f"bad files: {'; '.join(manifest['bad_files'])}")
  lines += [line.removeprefix("warning: ") for line in describe_drift(manifest) if line.startswith("warning:")]
  if problem := (manifest.get("changes") or {}).get("problem"):
    lines.append(f"what is gone is not fully known, as the run before could not be read: {problem}")
  return lines


def find_sums(manifest: Mapping[str, Any]) -> tuple[Sum, ...]:
  """Returns the sums that the counts of a run have to be; of what was written only where anything could be."""
  counts = manifest["counts"]
  rejected = sum(counts["rejected"].values())
  sums = [
    Sum("read", counts["read"], (("written", counts["written"]), ("rejected", rejected))),
    Sum("written", counts["written"], tuple((name, counts[name]) for name in ("new", "changed", "unchanged"))),
    Sum("distinct", counts["distinct"], tuple((name, counts[name]) for name in ("encoded", "reused"))),
  ]
  wrote = "refused" not in manifest["whitening"]
  return tuple(sums) if wrote else tuple(sums[2:])


def find_stages(manifest: Mapping[str, Any]) -> tuple[Stage, ...]:
  """Returns what the stages of a run did."""
  counts, seconds, rows = manifest["counts"], manifest["seconds"], describe_rows(manifest).split()[0]
  computed = counts["computed_tokens"]
  padding = 1 - counts["encoded_tokens"] / computed if computed else 0.0
  return (
    Stage("read and tokenise", rows, counts["read"], seconds["read"]),
    Stage("encode", "texts", counts["encoded"], seconds["encode"], counts["encoded_tokens"], padding),
    Stage("whiten and write", rows, counts["written"], seconds["write"]),
  )


def find_reasons(dataset: Dataset, manifest: Mapping[str, Any], with_texts: bool) -> tuple[Reason, ...]:
  """Returns what was rejected by reason, most frequent first, with examples from the first files: a rare reason is not
  looked for in all of what was rejected.

  `detail` and `text` of an example, which may quote the document, are there with texts only.
  """
  counts = manifest["counts"]["rejected"]
  found: dict[str, list[Mapping[str, Any]]] = {reason: [] for reason in counts}
  left = MAX_REJECTED_BYTES
  for file in manifest["files"].get("rejected", ())[:MAX_REJECTED_FILES]:
    if left <= 0 or all(len(found[reason]) >= min(N_EXAMPLES, counts[reason]) for reason in found):
      break
    left -= file["bytes"]
    for document in _rejected(dataset, file["path"]):
      examples = found.get(document["reason"], [])
      if len(examples) < N_EXAMPLES:
        examples.append(document if with_texts else document | {"detail": "", "text": None})
  names = sorted(counts, key=lambda reason: (-counts[reason], reason))
  return tuple(Reason(name, counts[name], tuple(found[name])) for name in names)


def _rejected(dataset: Dataset, path: str) -> Sequence[dict[str, Any]]:
  """Returns the documents of a file of about 8 MB; none of one that is missing or damaged: verify is for that."""
  try:
    return [json.loads(line) for line in dataset.storage.read(path).splitlines()]
  except (OSError, ValueError):
    return []


def _of_vectors(
  dataset: Dataset, manifest: Mapping[str, Any], columns: Sequence[str], with_texts: bool
) -> dict[str, Any]:
  """Returns the facts that come of the run's vectors, by name; `problems` has what cannot be said."""
  if not manifest["counts"]["written"]:
    return {"sample": RowSample()}
  problems: dict[str, str] = {}
  facts: dict[str, Any] = {"sample": None, "problems": problems}
  try:
    facts["spectrum"] = _spectrum(dataset, manifest)
  except (OSError, SorbusError, ValueError) as error:
    problems["spectrum"] = str(error)
  try:
    sample = facts["sample"] = sample_rows(dataset, manifest, columns)
  except (OSError, SorbusError) as error:
    problems |= dict.fromkeys(("rows", "cosines", "map"), str(error))
    return facts
  indices, raw = np.empty(0, np.int64), np.empty((0, 0), np.float32)
  try:
    indices, raw = raw_vectors(dataset, manifest, sample.digests)
    facts["cosines"] = random_cosines(raw, sample.vectors[indices])
  except (OSError, SorbusError) as error:
    problems["cosines"] = str(error)
  except ValueError:
    problems["cosines"] = f"{len(raw)} texts with raw vectors are too few; they may have been encoded anew since"
  if with_texts:
    _add_texts(facts, sample, indices, raw)
  return facts


def _spectrum(dataset: Dataset, manifest: Mapping[str, Any]) -> Spectrum:
  (file,) = manifest["files"].get("moments") or [None]
  if file is None:
    raise UsageError("the run keeps no moments of its raw vectors")
  moments = Moments.from_bytes(dataset.storage.read(file["path"]), file["path"])
  if moments.count < 2:
    raise UsageError(f"{moments.count} documents have no variance")
  return spectrum(moments.covariance(), manifest["whitening"]["n_components"])


def _add_texts(facts: dict[str, Any], sample: RowSample, indices: Any, raw: Any) -> None:
  """Adds map and neighbours, of documents that have a text to show."""
  if sample.texts is None:
    facts["problems"]["texts"] = "the run keeps no text; embed with --keep-columns and the column of the text"
    return
  # Raw vectors where there are some: whitened, all directions are alike, and two of them say nothing.
  rows, vectors = (indices, raw) if len(raw) >= min(len(sample.doc_ids), N_POINTS) // 2 else (None, sample.vectors)
  rows = np.arange(len(vectors)) if rows is None else rows
  try:
    facts["map"] = plane(vectors[:N_POINTS])
    facts["points"] = tuple(int(row) for row in rows[:N_POINTS])
  except ValueError:
    facts["problems"]["map"] = "too few documents"
  queries = sorted({round(i) for i in np.linspace(0, len(sample.doc_ids) - 1, N_QUERIES)}) if sample.doc_ids else []
  found = nearest(sample.vectors, sample.digests, queries, N_NEIGHBOURS)
  facts["neighbours"] = tuple(
    Neighbours(
      sample.doc_ids[query],
      sample.texts[query],
      tuple((cosine, sample.doc_ids[row], sample.texts[row]) for cosine, row in best),
    )
    for query, best in zip(queries, found, strict=True)
  )
