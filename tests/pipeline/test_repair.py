import pytest

from pipeline.repair import MAX_ATTEMPTS, damage_told, repaired
from tests.run_parts import A_FILE_FOR_EACH_TEXT, encode_rows, make_plan
from transforms.digests import DigestRange, digest_array
from transforms.errors import KnownTextsLostError, StoreError
from transforms.known_texts import KnownTexts
from transforms.read_documents import Wave
from transforms.rows import Row

TEXTS = ["red", "green house", "blue tree 1", "white town 1 2", "black house 3 4 5"]
WAVE, EVERYTHING = Wave(0, 0, 1), DigestRange(0, 0)


@pytest.fixture
def run(tmp_path):
  """A run on a store that has a file for each text."""
  rows = [Row(i, text, text, ()) for i, text in enumerate(TEXTS)]
  encode_rows(make_plan(tmp_path, run_id="r0", **A_FILE_FOR_EACH_TEXT), rows)
  return make_plan(tmp_path)


def raw_file(run, number):
  return run.storage.path(f"{run.store.folder}/{sorted(run.storage.names(run.store.folder))[number]}")


class Encode:
  """Fails for the loss of known texts until it has done what it was given, one thing a call."""

  def __init__(self, run, *actions):
    self.run, self.actions, self.known = run, list(actions), []

  def __call__(self, wave):
    self.known.append(len(KnownTexts.open(self.run.storage, wave.known)))
    if self.actions:
      self.actions.pop(0)()
      raise KnownTextsLostError("lost")
    return wave


def test_a_wave_is_told_what_is_known(run):
  said = []
  wave = repaired(run, WAVE, Encode(run), said.append)
  known = KnownTexts.open(run.storage, wave.known)
  assert known.holds(digest_array([*TEXTS, "other"])).tolist() == [True] * 5 + [False] and said == []
  assert (wave.number, wave.first, wave.stop) == (0, 0, 1)


def test_an_empty_store_knows_nothing(tmp_path):
  run = make_plan(tmp_path)
  assert repaired(run, WAVE, Encode(run), print) == WAVE and run.storage.walk("") == []


def test_each_loss_starts_the_wave_again_with_less(run):
  """A file that is gone, and one that was cut; each attempt has a file of its own for what is known."""
  said = []
  encode = Encode(run, raw_file(run, 0).unlink, lambda: raw_file(run, 1).write_bytes(b""))
  repaired(run, WAVE, encode, said.append)
  assert encode.known == [5, 4, 3] and len(run.storage.names(f"{run.folder}/known")) == 3
  assert (
    said
    == [
      "repair: 1 texts that were known are in no whole raw file (damaged or gone); wave 0 starts again and encodes them"
    ]
    * 2
  )


def test_a_file_that_a_worker_marked_is_reason_enough(run):
  """Its text may stand in another file, so that nothing is lost after all."""
  (name, *_) = run.store.find(EVERYTHING)
  run.store.write(EVERYTHING, "r9", run.store.read(name))
  encode = Encode(run, lambda: run.store.mark_damaged(name))
  repaired(run, WAVE, encode, print)
  assert encode.known == [5, 5]


def test_a_loss_without_a_cause_is_raised_again(run):
  encode = Encode(run, lambda: None)
  with pytest.raises(KnownTextsLostError, match=r"^lost$"):
    repaired(run, WAVE, encode, print)
  assert encode.known == [5]


def test_a_loss_that_goes_on_is_raised_in_the_end(run):
  actions = [lambda: raw_file(run, 0).unlink() for _ in range(MAX_ATTEMPTS)]
  encode = Encode(run, *actions)
  with pytest.raises(KnownTextsLostError):
    repaired(run, WAVE, encode, lambda line: None)
  assert encode.known == [5, 4, 3, 2]


def test_other_errors_go_through(run):
  def fail(wave):
    raise StoreError("another")

  with pytest.raises(StoreError, match="another"):
    repaired(run, WAVE, fail, print)


def test_damage_is_told_once(run):
  said = []
  names = run.store.find(EVERYTHING)
  run.store.mark_damaged(names[4])
  with damage_told(run.store, said.append):
    pass
  assert said == []
  with pytest.raises(StoreError), damage_told(run.store, said.append):
    for name in [*names[:4], names[0]]:
      run.store.mark_damaged(name)
    raise StoreError("and it stopped")
  assert said == [
    f"repair: damaged or gone in {run.store.folder}: {', '.join(names[:3])} and 1 more; no run counts on it any more, "
    "what it held is encoded anew"
  ]
