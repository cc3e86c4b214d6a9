"""Beam's metrics under stable names, and the one seam by which a step reports: to them, and to the progress file.

Both are for whoever watches: a bundle that runs twice counts twice. The manifest is made from records instead.

A name is the step and what it counts, with its unit; docs/schedule.md lists them, and monitors go by them: none is
renamed or counts something else. They are summed over waves, which locally are a pipeline each.
"""

from apache_beam.metrics import Metrics

from transforms.progress_file import ProgressFile

# What steps call it, and the progress file → namespace and name in Beam.
COUNTERS = {
  "rows_read": "read/rows-count",  # each wave reads all of them
  "bytes_read": "read/input-bytes",
  "documents_kept": "read/documents-count",
  "rejected_reading": "read/rejected-count",
  "texts_seen": "store/texts-count",
  "texts_known": "store/known-count",
  "texts_encoded": "encode/texts-count",
  "tokens_encoded": "encode/tokens-count",
  "rejected_encoding": "encode/rejected-count",
  "rows_written": "write/rows-count",
  "rejected_writing": "write/rejected-count",
}
DISTRIBUTIONS = {
  "slice_msec": "read/slice-msec",
  "batch_rows": "encode/batch-rows",
  "batch_msec": "encode/batch-msec",
  "bucket_msec": "encode/bucket-msec",
  "shard_msec": "write/shard-msec",
}
_counters = {key: Metrics.counter(*name.split("/")) for key, name in COUNTERS.items()}
_distributions = {key: Metrics.distribution(*name.split("/")) for key, name in DISTRIBUTIONS.items()}


class StepReport:
  """Where a step says what it has done; outside of a pipeline only the progress file hears it."""

  def __init__(self, progress: ProgressFile):
    self._progress = progress

  def add(self, **counts: int) -> None:
    """Adds to counts, such as `rows_read=1024`; raises KeyError for one that has no name in Beam."""
    for key, n in counts.items():
      _counters[key].inc(n)
    self._progress.add(**counts)

  def observe(self, **values: float) -> None:
    """Adds a value each to distributions, such as `batch_rows=64`: Beam keeps count, sum, least and largest."""
    for key, value in values.items():
      _distributions[key].update(round(value))  # Beam's are of whole numbers
