import subprocess
import tempfile

import numpy as np
import pytest

from pipeline.model.reference_run import run_reference
from tests.old_graph import tf, v1
from transforms.errors import EncoderError

CASES = ((2, 3), (2, 9, 3), (2, 8, 9, 3), tuple(range(40)))


def graph_of(draw):
  with tf.Graph().as_default() as graph:
    ids, mask = (v1.placeholder(tf.int32, [None, None], name) for name in ("input_ids", "input_mask"))
    tf.identity(draw(ids, mask), "output")
  return graph.as_graph_def().SerializeToString()


def test_each_text_is_run_alone_and_what_is_too_long_is_told_with_how_many_tokens_are_not():
  table = np.arange(120, dtype=np.float32).reshape(30, 4)

  def draw(ids, mask):
    return tf.cast(ids * mask, tf.float32)[:, :, None] + tf.slice(table, [0, 0], [tf.shape(ids)[1], 4])

  reference = run_reference(graph_of(draw), "output", CASES)
  assert (reference.trial, len(reference.outputs), reference.longest) == ((2, 3, 4), 3, 30)
  np.testing.assert_array_equal(reference.outputs[1], np.array([[2], [9], [3]]) + table[:3])
  assert "node 'Slice' cannot be computed" in reference.failure


def test_a_process_that_ends_without_a_result_is_told_in_one_line():
  with pytest.raises(EncoderError, match=r"TensorFlow ended with 1 while it computed it .*nowhere") as caught:
    run_reference(graph_of(lambda ids, mask: ids), "nowhere", CASES)
  assert "\n" not in str(caught.value)


def test_nothing_is_imported_from_the_folder_that_a_person_stands_in(tmp_path, monkeypatch):
  (tmp_path / "json.py").write_text("raise SystemExit('somebody else’s json.py')")
  monkeypatch.chdir(tmp_path)
  reference = run_reference(graph_of(lambda ids, mask: tf.reduce_sum(tf.cast(ids, tf.float32))), "output", CASES[:2])
  assert (reference.trial, reference.failure) == ((), None)  # one number in all is for the caller to refuse


def test_a_process_that_the_system_ends_is_told_with_the_reason(monkeypatch):
  monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, -9, b"", b""))
  with pytest.raises(EncoderError, match=r"the system ended TensorFlow .* when memory is short; free some"):
    run_reference(b"", "output", CASES)


def test_a_place_for_temporary_files_that_cannot_be_written_is_told(monkeypatch, tmp_path):
  monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
  with pytest.raises(EncoderError, match=r"cannot be run from .*gone \(No such file or directory\); set TMPDIR"):
    run_reference(b"", "output", CASES)
