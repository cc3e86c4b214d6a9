"""The gates before publishing: each gives a verdict, which is recorded and never raised."""

from collections.abc import Mapping
from typing import Any

from pipeline.accounts import count_by_input, describe_long_texts, find_unaccounted
from pipeline.publish_plan import MeasuredSelfTest, PublishPlan
from transforms.long_texts import Documents
from transforms.records import Records
from transforms.rejected import ENCODER_FAILED, INVALID_BYTES, VECTOR_NOT_FINITE, ZERO_VECTOR
from transforms.whitening import Whitening
from transforms.write_vectors import NoWhitening

# A document is rejected for these when the encoder, not the text, is at fault.
BROKEN_REASONS = (ENCODER_FAILED, VECTOR_NOT_FINITE, ZERO_VECTOR)


def judge(
  plan: PublishPlan, counts: Mapping[str, Any], records: Records, whitening: Whitening | NoWhitening
) -> dict[str, dict[str, Any]]:
  """Returns each gate's verdict: whether the run passed, and one line that says why, with the remedy if it did not."""
  long_texts = describe_long_texts(plan.run, records)
  documents = Documents.of(counts, long_texts)
  n_documents = documents.read if documents else counts["read"]
  fingerprints = {r.whitening_fingerprint for r in records.shards if r.vectors}
  verdicts = {
    "documents": _verdict(n_documents > 0, f"{n_documents:,} documents read", "check what --input matches"),
    "whitening": _verdict(
      isinstance(whitening, Whitening), getattr(whitening, "reason", f"{len(fingerprints)} whitening in all shards"), ""
    ),
    "rejected": _judge_rejected(plan, counts, documents),
    "vectors": _judge_vectors(plan, counts),
  }
  if plan.self_test is not None:
    verdicts["self-test"] = _judge_self_test(plan.self_test)
  if isinstance(whitening, Whitening):
    verdicts["accounts"] = _judge_accounts(plan, counts, records, fingerprints <= {whitening.fingerprint})
    if plan.base_rows:
      n_rows, rows = counts["written"], "rows"
      if plan.compares_documents:
        n_rows, rows = Documents.count_written(counts, long_texts), "documents"
      gone = max(0.0, 1 - n_rows / plan.base_rows)
      verdicts["rows"] = _verdict(
        gone <= plan.max_shrink,
        f"{n_rows:,} {rows} after {plan.base_rows:,} ({gone:.2%} fewer), {plan.max_shrink:.2%} allowed",
        "is all of the input there? If it is, raise --max-shrink, or publish this run: "
        f"`sorbus publish DATASET {plan.run.run_id} --anyway`",
      )
  return verdicts


def _judge_rejected(plan: PublishPlan, counts: Mapping[str, Any], documents: Documents | None) -> dict[str, Any]:
  """Returns the verdict on how much was rejected.

  Of a run of chunks documents by documents, and of what is left chunks by chunks: a document that is rejected before it
  is cut may have been a chapter, and counts for more than one chunk of thousands.
  """
  n_rejected = sum(counts["rejected"].values())
  share, of = n_rejected / max(counts["read"], 1), f"{n_rejected:,} of {counts['read']:,} documents"
  if documents is not None:
    n_chunks, chunks = counts["read"] - documents.rejected, n_rejected - documents.rejected
    lost = documents.rejected / max(documents.read, 1)
    share = lost + (1 - lost) * chunks / max(n_chunks, 1)
    of = f"{documents.rejected:,} of {documents.read:,} documents and {chunks:,} of {n_chunks:,} chunks"
  return _verdict(
    share <= plan.max_rejected,
    f"{of} rejected ({share:.2%}), {plan.max_rejected:.2%} allowed",
    f"see {plan.run.folder}/rejected/, mend them, or raise --max-rejected" + _encoding_hint(counts["rejected"]),
  )


def _judge_vectors(plan: PublishPlan, counts: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the verdict on how many documents the encoder failed on.

  One document is always allowed, unless none is: of a few hundred it is more than any sensible share, and one text that
  a graph cannot compute is no broken encoder.
  """
  broken = {reason: n for reason in BROKEN_REASONS if (n := counts["rejected"].get(reason))}
  total = sum(broken.values())
  share = total / max(counts["read"], 1)
  of = "".join(f", {n:,} {reason}" for reason, n in broken.items())
  allowed = f"{plan.max_broken:.2%} or one document" if plan.max_broken else "none"
  return _verdict(
    share <= plan.max_broken or (total <= 1 and plan.max_broken > 0),
    f"{total:,} of {counts['read']:,} documents without a usable vector ({share:.2%}{of}), {allowed} allowed",
    "this is the encoder's doing rather than the texts': `sorbus show` of its folder tests it; mend it and embed again "
    f"with --replay {plan.run.run_id}, or raise --max-broken",
  )


def _judge_self_test(measured: MeasuredSelfTest) -> dict[str, Any]:
  unit, remedy = "", "TF_ENABLE_ONEDNN_OPTS=0"
  if measured.precision != "float32":  # which there is not without oneDNN
    unit, remedy = f" in 1 - cosine ({measured.precision})", "--precision float32"
  return _verdict(
    measured.error <= measured.allowed,
    f"the encoder's self-test is off by {measured.error:.3g}{unit}, {measured.allowed:.3g} allowed",
    f"another machine or TensorFlow version computes otherwise: try {remedy}, or raise --max-self-test-error",
  )


def _judge_accounts(
  plan: PublishPlan, counts: Mapping[str, Any], records: Records, one_whitening: bool
) -> dict[str, Any]:
  files = plan.run.files
  names = (file.name for file in files)
  wrong = _find_unread(plan, records) or find_unaccounted(
    counts, zip(names, count_by_input(files, records), strict=True)
  )
  finding = (
    f"{counts['read']:,} read = {counts['written']:,} written + {sum(counts['rejected'].values()):,} rejected, in each "
    f"input file too; written = {counts['new']:,} new + {counts['changed']:,} changed + {counts['unchanged']:,} "
    "unchanged"
  )
  return _verdict(
    wrong is None and one_whitening,
    wrong or (finding if one_whitening else "shards of several whitenings"),
    "the counts do not add up: this is a bug, please report it with the manifest",
  )


def _find_unread(plan: PublishPlan, records: Records) -> str | None:
  """Returns how many slices were not read, or twice: an engine that lost one loses its sums on both sides."""
  read = len({(r.wave, r.file, r.begin) for r in records.slices})
  if plan.n_slices is None or read == len(records.slices) == plan.n_slices:
    return None
  return f"{len(records.slices)} slices of the input were read ({read} different ones), and {plan.n_slices} planned"


def _encoding_hint(rejected: Mapping[str, int]) -> str:
  """Returns what to try when most are rejected because their bytes are no text in the encoding that was named."""
  mostly = max(rejected, key=lambda reason: rejected[reason], default=None)
  return "; or is the text in another --encoding?" if mostly == INVALID_BYTES else ""


def _verdict(passed: bool, finding: str, remedy: str) -> dict[str, Any]:
  return {"passed": bool(passed), "finding": finding if passed or not remedy else f"{finding}; {remedy}"}
