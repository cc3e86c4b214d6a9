import numpy as np
import pyarrow as pa
import pytest

from transforms.digests import DigestRange, bucket_of, digest, digest_array, from_arrow, is_among, to_arrow

TEXTS = [f"text {i}" for i in range(500)]


def test_a_known_digest():
  """blake2b's own test vector for 'abc' has another length; this is `b2sum -l 128`."""
  assert digest("abc").hex() == "cf4ab791c62b8d2b2109c90275287816"
  assert digest("é") == digest("\u00e9") != digest("e\u0301")  # bytes count, not looks
  with pytest.raises(UnicodeEncodeError):
    digest("\ud800")


def test_a_digest_array_holds_the_digests():
  assert digest_array(TEXTS).tobytes() == b"".join(map(digest, TEXTS))
  assert len(digest_array([])) == 0


def test_trailing_zero_bytes_survive_the_arrow_round_trip():
  raw = [bytes(16), bytes(15) + b"\1", b"\1" + bytes(15), b"ab" + bytes(14), bytes(range(16)), b"a\0b" + bytes(13)]
  digests = np.frombuffer(b"".join(raw), "S16")
  column = to_arrow(digests)
  assert column.to_pylist() == raw
  assert from_arrow(column).tobytes() == b"".join(raw)
  assert from_arrow(column.slice(2, 3)).tobytes() == b"".join(raw[2:5])
  assert from_arrow(pa.chunked_array([column.slice(4), column.slice(0, 1)])).tobytes() == raw[4] + raw[5] + raw[0]
  assert len(set(from_arrow(column).tolist())) == len(raw)  # and NumPy still tells them apart
  assert from_arrow(column[:0]).dtype == from_arrow(pa.chunked_array([], column.type)).dtype == np.dtype("S16")


def test_buckets_are_the_first_bits():
  digests = np.frombuffer(b"\x80\x01" + bytes(14) + b"\x00\xff" + bytes(14) + b"\xff\xff" + bytes(14), "S16")
  assert bucket_of(digests, 1).tolist() == [1, 0, 1]
  assert bucket_of(digests, 4).tolist() == [8, 0, 15]
  assert bucket_of(digests, 9).tolist() == [256, 1, 511]
  assert bucket_of(digests, 16).tolist() == [0x8001, 0xFF, 0xFFFF]
  assert bucket_of(digests, 0).tolist() == [0, 0, 0]
  assert bucket_of(digests[:0], 4).tolist() == []


def test_buckets_nest():
  digests = digest_array(TEXTS)
  for bits in range(16):
    assert (bucket_of(digests, bits) == bucket_of(digests, bits + 1) >> 1).all()


def test_buckets_are_filled_evenly():
  counts = np.bincount(bucket_of(digest_array(map(str, range(16_000))), 4), minlength=16)
  assert len(counts) == 16 and counts.min() > 850 and counts.max() < 1150


def test_what_is_among_sorted_digests():
  digests = digest_array(TEXTS)
  for ordered in (np.unique(digests[::3]), digests[:0], digests[:1]):
    assert is_among(digests, ordered).tolist() == np.isin(digests, ordered).tolist()
  assert is_among(digests[:0], np.unique(digests)).tolist() == []


def test_range_names():
  assert [DigestRange(*pair).name for pair in [(0, 0), (0, 1), (2, 4), (15, 4)]] == ["all", "0", "0010", "1111"]


def test_ranges_overlap_when_they_share_a_digest():
  """Against brute force: the sets of 16ths that two ranges of up to 4 bits cover."""
  ranges = [DigestRange(bucket, bits) for bits in range(5) for bucket in range(1 << bits)]
  covered = {r: {x for x in range(16) if x >> (4 - r.bits) == r.bucket} for r in ranges}
  for ours in ranges:
    assert {theirs for theirs in ranges if ours.overlaps(theirs.name)} == {
      theirs for theirs in ranges if covered[ours] & covered[theirs]
    }


@pytest.mark.parametrize(
  "wanted", [DigestRange(0, 0), DigestRange(1, 1), DigestRange(0b0101, 4), DigestRange(65535, 16)]
)
def test_a_range_has_a_name_buckets_and_digests(wanted):
  digests = digest_array(str(i) for i in range(500))
  assert DigestRange.named(wanted.name) == wanted
  mine = wanted.within(digests)
  assert mine.tolist() == [
    d
    for d in digests.tolist()
    if format(int.from_bytes(d[:2]), "016b")[: wanted.bits] == (wanted.name if wanted.bits else "")
  ]
  for bits in (0, 1, 3, 4, 6, 16):
    buckets = wanted.buckets(bits)
    assert set(bucket_of(mine, bits)) <= set(buckets)
    assert list(buckets) == [b for b in range(1 << bits) if DigestRange(b, bits).overlaps(wanted.name)]
