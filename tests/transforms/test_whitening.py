"""Whitening against the formula, its laws, its refusals and its file."""

import io
import pickle
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from transforms.errors import StoreError, UsageError
from transforms.moments import Moments
from transforms.whitening import FORMAT_VERSION, Whitening, WhiteningError, load_whitening, normalise

N, H, K = 500, 12, 5
# Correlated, of unequal scale and far from the origin, as an encoder's outputs are.
_rng = np.random.default_rng(3)
RAW = (_rng.normal(size=(N, H)) * np.geomspace(3, 0.05, H) @ _rng.normal(size=(H, H)) + 7.0).astype(np.float32)
MOMENTS = Moments.from_vectors(RAW)


def formula(raw, K):
  """BERT-whitening as published (Su et al. 2021), float64: mean, U·diag(1/√s), first K, L2."""
  raw = raw.astype(np.float64)
  u, s, _ = np.linalg.svd(np.cov(raw.T))
  reduced = (raw - raw.mean(axis=0)) @ (u @ np.diag(1 / np.sqrt(s)))[:, :K]
  return reduced / np.linalg.norm(reduced, axis=1, keepdims=True)


def of_rank(rank, count, width=H):
  rng = np.random.default_rng(4)
  return (rng.normal(size=(count, rank)) @ rng.normal(size=(rank, width)) + 1.0).astype(np.float32)


@pytest.mark.parametrize("n_components", [1, K, H])
def test_equals_the_published_formula_up_to_a_sign(n_components):
  unit, usable = normalise(Whitening.fit(MOMENTS, n_components).reduce(RAW))
  expected = formula(RAW, n_components)
  signs = np.sign((unit * expected).sum(axis=0))
  assert usable.all()
  np.testing.assert_allclose(unit * signs, expected, atol=1e-5)


def test_reduced_vectors_have_mean_zero_and_identity_covariance():
  reduced = Whitening.fit(MOMENTS, H).reduce(RAW)
  np.testing.assert_allclose(np.cov(reduced, rowvar=False), np.eye(H), atol=1e-6)
  np.testing.assert_allclose(reduced.mean(axis=0), 0, atol=1e-9)


def test_signs_do_not_depend_on_the_order_of_the_documents():
  shuffled = Moments.from_vectors(RAW[::-1][:200]) + Moments.from_vectors(RAW[::-1][200:])
  a, b = Whitening.fit(MOMENTS, H), Whitening.fit(shuffled, H)
  np.testing.assert_allclose(a.kernel, b.kernel, atol=1e-6)
  largest = np.abs(a.kernel).argmax(axis=0)
  assert (a.kernel[largest, np.arange(H)] > 0).all()


def test_a_row_reduces_alone_as_it_does_among_others():
  whitening = Whitening.fit(MOMENTS, K)
  together, _ = normalise(whitening.reduce(RAW))
  alone = np.concatenate([normalise(whitening.reduce(row[None]))[0] for row in RAW])
  assert (alone == together).all()  # at other sizes: test_exact_product.py


def mixed_up(whitening, order, signs):
  return replace(whitening, kernel=whitening.kernel[:, order] * signs)


def test_a_new_fit_has_the_signs_of_the_last_whatever_the_order_of_its_components():
  whitening = Whitening.fit(MOMENTS, K)
  order, signs = [1, 0, 2, 4, 3], np.array([1.0, -1.0, -1.0, 1.0, -1.0])
  previous = mixed_up(whitening, order, signs)
  aligned = whitening.aligned_with(previous)
  assert (aligned.kernel[:, order] == previous.kernel).all()
  assert aligned.aligned_with(previous).fingerprint == aligned.fingerprint
  assert whitening.aligned_with(whitening).fingerprint == whitening.fingerprint
  assert aligned.mean is whitening.mean and aligned.count == whitening.count


def test_signs_are_aligned_through_noise_and_with_fewer_or_more_components():
  rng = np.random.default_rng(9)
  noisy = Moments.from_vectors((RAW + rng.normal(size=RAW.shape) * 0.05).astype(np.float32)[:400])
  turned = np.array([-1.0, 1.0, -1.0, -1.0, 1.0])
  previous = mixed_up(Whitening.fit(MOMENTS, K), range(K), turned)
  for n_components in (2, K, H):
    aligned = Whitening.fit(noisy, n_components).aligned_with(previous)
    n = min(n_components, K)
    assert ((aligned.kernel[:, :n] * previous.kernel[:, :n]).sum(axis=0) > 0).all()


def test_a_component_that_the_last_fit_had_not_keeps_the_sign_of_the_rule():
  whitening = Whitening.fit(MOMENTS, H)
  previous = mixed_up(Whitening.fit(MOMENTS, 2), [0, 1], -1.0)
  aligned = whitening.aligned_with(previous)
  assert (aligned.kernel == whitening.kernel * np.where(np.arange(H) < 2, -1.0, 1.0)).all()


def test_the_signs_of_no_whitening_are_the_rule_itself():
  whitening = Whitening.fit(MOMENTS, K)
  assert whitening.aligned_with(Whitening.none(H)).fingerprint == whitening.fingerprint
  assert mixed_up(whitening, range(K), -1.0).aligned_with(Whitening.none(H)).fingerprint == whitening.fingerprint


def test_whitenings_of_other_widths_cannot_be_aligned():
  with pytest.raises(ValueError, match=f"of width {H} and 3"):
    Whitening.fit(MOMENTS, K).aligned_with(Whitening.none(3))


def test_variances_are_all_kept_and_descend():
  whitening = Whitening.fit(MOMENTS, K)
  assert whitening.explained_variance.shape == (H,)
  assert (np.diff(whitening.explained_variance) <= 0).all()
  np.testing.assert_allclose(whitening.explained_variance.sum(), np.trace(MOMENTS.covariance()))
  assert (whitening.hidden_size, whitening.n_components, whitening.count) == (H, K, N)
  assert whitening.bias.tolist() == (-RAW.astype(np.float64).mean(axis=0)).tolist()


@pytest.mark.parametrize(("share", "n_components"), [(0.3, 1), (0.5, 1), (0.6, 2), (0.95, 4), (0.9999999999999999, 4)])
def test_a_share_keeps_the_fewest_components_that_reach_it(share, n_components):
  # Variances 5, 3, 1, 1 exactly: shares .5, .8, .9, 1.
  points = np.concatenate([np.diag(np.sqrt([5.0, 3.0, 1.0, 1.0])), -np.diag(np.sqrt([5.0, 3.0, 1.0, 1.0]))])
  whitening = Whitening.fit(Moments.from_vectors(points), share)
  assert whitening.n_components == n_components
  assert whitening.kept_variance >= share - 1e-15


def test_a_share_just_below_1_points_at_no_component_behind_the_last():
  # Here the running sum of the 300 variances falls short of their sum by 1e-15.
  wide = Moments.from_vectors(np.random.default_rng(1).normal(size=(400, 300)))
  assert Whitening.fit(wide, float(np.nextafter(1, 0))).n_components == 300


def test_256_components_unless_asked_or_the_encoder_is_narrower():
  """Of a narrower encoder one less than its width: layer-normalised vectors have no more directions."""
  wide = Moments.from_vectors(np.random.default_rng(5).normal(size=(400, 300)))
  assert Whitening.fit(wide).n_components == 256
  assert Whitening.fit(MOMENTS).n_components == H - 1


@pytest.mark.parametrize(
  ("raw", "n_components", "message"),
  [
    (RAW[:0], 3, "0 documents are too few"),
    (RAW[:1], 3, "1 documents are too few"),
    (RAW[:2], 1, "2 documents are too few to fit"),
    (RAW[:1], 0.9, "1 documents are too few"),
    (of_rank(60, 50, 300), 256, "50 documents are too few for 256 components.*258 are needed.*--n-components 48"),
    (RAW[:6], 5, "6 documents are too few for 5 components"),
    (np.repeat(RAW[:1], 900, axis=0), 3, "all 900 raw vectors are the same"),
    (np.repeat(RAW[:1], 900, axis=0), 0.95, "all 900 raw vectors are the same"),
    (np.zeros((900, H), np.float32), None, "all 900 raw vectors are the same"),
    (of_rank(4, 900), 5, "vary in 4 directions, 5 components.*--n-components 4 or less"),
    (
      np.concatenate([RAW - RAW.mean(0), RAW.mean(0) - RAW]) * np.where(np.arange(H) == 6, 1e-6, 1),
      H,
      "in 11 directions",
    ),
    (np.where(np.arange(H) == 6, 0.1, RAW).astype(np.float32), H, "vary in 11 directions"),
    (np.where(np.arange(H) == 6, 1e6 + 0.1, RAW).astype(np.float32), H, "vary in 11 directions"),
  ],
)
def test_too_little_to_fit_ends_with_what_to_choose_instead(raw, n_components, message):
  with (
    np.errstate(divide="raise", invalid="raise", over="raise"),
    pytest.raises(WhiteningError, match=message) as caught,
  ):
    Whitening.fit(Moments.from_vectors(raw), n_components)
  assert "--whitening none or --whitening PATH" in str(caught.value)
  assert "\n" not in str(caught.value)


def test_what_the_refusals_propose_works():
  assert Whitening.fit(Moments.from_vectors(RAW[:7]), 5).n_components == 5  # N = K + 2
  constant = np.where(np.arange(H) == 6, 0.1, RAW).astype(np.float32)
  unit, usable = normalise(Whitening.fit(Moments.from_vectors(constant), H - 1).reduce(constant))
  assert usable.all() and np.isfinite(unit).all()


def test_one_text_is_not_its_last_bits_blown_up_to_unit_variance():
  text = np.array([1 / 3, 1000 / 7, -5 / 9], np.float32)
  flips = np.random.default_rng(6).integers(0, 2, (1000, 3)).astype(bool)
  moments = Moments.from_vectors(np.where(flips, np.nextafter(text, np.float32(0)), text))
  assert np.diag(moments.scatter).all()  # something is there to blow up
  with pytest.raises(WhiteningError, match="all 1000 raw vectors are the same"):
    Whitening.fit(moments, 1)


@pytest.mark.parametrize("n_components", [0, -1, H + 1, 0.0, 1.0, 1.5, float("nan")])
def test_an_impossible_number_of_components_is_bad_usage(n_components):
  with pytest.raises(UsageError, match=f"--n-components {n_components}:"):
    Whitening.fit(MOMENTS, n_components)


def test_none_keeps_every_dimension_to_the_bit():
  whitening = Whitening.none(H, "abc")
  assert (whitening.reduce(RAW) == RAW).all()
  unit, _ = normalise(whitening.reduce(RAW))
  np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, atol=1e-6)
  assert whitening.kept_variance is None
  assert Whitening.from_bytes(whitening.to_bytes()).fingerprint == whitening.fingerprint


def test_rows_without_direction_are_left_out_and_never_divided():
  reduced = np.array([[3.0, 4.0], [0.0, 0.0], [np.nan, 1.0], [np.inf, 1.0], [1e-40, 0.0], [1e200, 1e200]])
  with np.errstate(divide="raise", invalid="raise", over="raise"):
    unit, usable = normalise(reduced)
  assert usable.tolist() == [True, False, False, False, True, False]
  assert unit.dtype == np.float32
  assert unit.tolist() == [[np.float32(0.6), np.float32(0.8)], [1.0, 0.0]]


def test_bytes_and_pickle_give_the_same_back():
  whitening = Whitening.fit(MOMENTS, K, "f" * 64)
  for copy in (Whitening.from_bytes(whitening.to_bytes()), pickle.loads(pickle.dumps(whitening))):
    assert copy.to_bytes() == whitening.to_bytes()
    assert copy.fingerprint == whitening.fingerprint
    assert (copy.count, copy.encoder_fingerprint) == (N, "f" * 64)
    assert (copy.reduce(RAW) == whitening.reduce(RAW)).all()


def test_ranges_are_kept_in_the_file_and_a_file_without_them_is_as_ever():
  plain = Whitening.fit(MOMENTS, K)
  ranged = replace(plain, ranges=np.linspace(0.25, 0.5, K, dtype=np.float32))
  assert "ranges" not in np.load(io.BytesIO(plain.to_bytes())).files
  assert Whitening.from_bytes(plain.to_bytes()).ranges.size == 0
  assert Whitening.from_bytes(ranged.to_bytes()).ranges.tobytes() == ranged.ranges.tobytes()
  assert ranged.fingerprint == plain.fingerprint
  assert ranged.ranges_fingerprint != replace(ranged, ranges=2 * ranged.ranges).ranges_fingerprint
  assert plain.ranges_fingerprint == ""


def test_fewer_components_have_no_ranges_yet():
  """Of the vector of length 1 each is larger, once the others are gone."""
  ranged = replace(Whitening.fit(MOMENTS, K), ranges=np.ones(K, np.float32))
  assert ranged.first(K).ranges.size == K and ranged.first(K - 1).ranges.size == 0


@pytest.mark.parametrize(
  ("ranges", "message"),
  [
    (np.ones(K), r"ranges is float64\[5\], expected f4\[5\]"),
    (np.ones(K - 1, np.float32), r"ranges is float32\[4\], expected f4\[5\]"),
    (np.float32([1, 0, 1, 1, 1]), "a range is not above 0"),
    (np.float32([1, np.nan, 1, 1, 1]), "ranges holds NaN"),
  ],
)
def test_damaged_ranges_are_refused_by_name(ranges, message):
  with np.load(io.BytesIO(Whitening.fit(MOMENTS, K).to_bytes())) as file:
    arrays = {name: file[name] for name in file.files}
  buffer = io.BytesIO()
  np.savez(buffer, **arrays, ranges=ranges)
  with pytest.raises(StoreError, match=f"^night.npz.*{message}"):
    Whitening.from_bytes(buffer.getvalue(), "night.npz")


def test_the_fingerprint_is_of_the_map_alone():
  a, b = Whitening.fit(MOMENTS, K, "one"), Whitening.fit(MOMENTS, K, "other")
  assert a.fingerprint == b.fingerprint
  assert a.fingerprint != Whitening.fit(MOMENTS, K + 1).fingerprint
  assert a.fingerprint != replace(a, kernel=-a.kernel).fingerprint
  assert a.fingerprint != replace(a, mean=-a.mean).fingerprint
  assert len(a.fingerprint) == 64


def _npz(**arrays):
  buffer = io.BytesIO()
  np.savez(buffer, **arrays)
  return buffer.getvalue()


def _own(**changes):
  whitening = Whitening.fit(MOMENTS, K, "abc")
  arrays = {name: getattr(whitening, name) for name in ("mean", "bias", "kernel", "explained_variance", "count")}
  arrays |= {"encoder_fingerprint": "abc", "format_version": FORMAT_VERSION} | changes
  return _npz(**{key: value for key, value in arrays.items() if value is not None})


@pytest.mark.parametrize(
  ("data", "message"),
  [
    (b"PK\x03\x04", "not a readable"),
    (_own(format_version=99), f"has format 99, this Sorbus reads {FORMAT_VERSION}: use the newer"),
    (_own(kernel=None), "no array 'kernel'"),
    (_own(kernel=np.ones((H + 1, K))), "kernel is float64"),
    (_own(kernel=np.empty((H, 0))), "not a whitening"),
    (_own(kernel=np.full((H, K), np.inf)), "kernel holds NaN or infinity"),
    (_own(bias=np.zeros(H)), "bias is not -mean"),
    (_own(explained_variance=-np.ones(H)), "a variance is below 0"),
    (_own(explained_variance=np.ones(3)), "explained_variance is"),
    (_own(encoder_fingerprint=7), "encoder_fingerprint is"),
  ],
)
def test_a_damaged_file_is_refused_by_name(data, message):
  with pytest.raises(StoreError, match=f"^w.npz.*{message}"):
    Whitening.from_bytes(data, "w.npz")


def _header(shape, descr="<f8"):
  """A `.npy` that states a shape and holds one number."""
  header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
  return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(8)


def _zip(kernel, compression=zipfile.ZIP_STORED):
  buffer = io.BytesIO()
  with zipfile.ZipFile(buffer, "w", compression) as archive:
    archive.writestr("kernel.npy", kernel)
  return buffer.getvalue()


def _patched(data, local, central, value):
  """The same zip with other bytes at an offset in its one member's local and central headers."""
  for signature, offset in ((b"PK\x03\x04", local), (b"PK\x01\x02", central)):
    at = data.index(signature) + offset
    data = data[:at] + value + data[at + len(value) :]
  return data


@pytest.mark.parametrize(
  ("data", "message"),
  [
    (_zip(_header((10**12,))), r"an array of float64 \[1000000000000\] in 8 bytes"),
    (_zip(_header((10**22,))), "an array of float64 .* in 8 bytes"),
    (_zip(_header("(-1,)")), r"an array of float64 \[-1\] in 8 bytes"),
    (_zip(_header((0, 10**22))), ""),
    (_zip(_header("(1,")), ""),
    (_zip(_header("'" * 3 + "(1,)")), ""),
    (_zip(_header("(" * 500 + ")" * 500)), ""),
    (_zip(_header("-" * 900 + "1")), ""),
    (_zip(_header("-" * 60000 + "1")), "[Hh]eader"),
    (_zip(_header((1,), "|O")), "allow_pickle"),
    (_zip(_header((1,), "nonsense")), "nonsense"),
    (_zip(b"a text, no array"), "magic"),
    (_zip(b""), "magic"),
    (_zip(b"\x93NUMPY\x03\x00"), r"format \(3, 0\)"),
    (_patched(_zip(b""), 22, 24, (2**30 + 1).to_bytes(4, "little")), "1073741825 bytes unpacked, more than 1073741824"),
    (_patched(_zip(_header((1,))), 6, 8, b"\x01"), "encrypted"),
    (_npz(kernel=np.full((2, 2), np.longdouble("1e4000")), bias=np.zeros(2)), "kernel holds NaN or infinity"),
  ],
)
def test_a_hostile_file_is_refused_in_one_line(data, message):
  with pytest.raises(UsageError, match=rf"^w\.npz.*{message}") as caught:
    load_whitening(data, "w.npz", hidden_size=2, encoder_fingerprint="abc")
  assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_any_damaged_byte_ends_in_a_refusal_and_no_other_error(compression):
  data, rng = _zip(_header((1,)), compression), np.random.default_rng(7)
  for i in range(len(data)):
    damaged = data[:i] + bytes([data[i] ^ int(rng.integers(1, 256))]) + data[i + 1 :]
    with pytest.raises(StoreError, match=r"^w\.npz"):
      Whitening.from_foreign(damaged, "w.npz")


@pytest.mark.parametrize("bias_shape", [(H,), (1, H)])
def test_a_foreign_file_is_the_blogs_formula(bias_shape):
  u, s, _ = np.linalg.svd(np.cov(RAW.astype(np.float64).T))
  kernel = np.linalg.inv(np.dot(u, np.diag(s**0.5)).T)  # as the published code computes it
  data = _npz(kernel=kernel, bias=-RAW.astype(np.float64).mean(axis=0).reshape(bias_shape))
  whitening = load_whitening(data, "blog.npz", hidden_size=H, encoder_fingerprint="abc", n_components=K)
  unit, _ = normalise(whitening.reduce(RAW))
  np.testing.assert_allclose(unit, formula(RAW, K), atol=1e-5)
  assert (whitening.count, whitening.encoder_fingerprint, whitening.kept_variance) == (0, "", None)


def test_a_path_to_our_own_file_gives_its_first_components():
  data = Whitening.fit(MOMENTS, H, "abc").to_bytes()
  options = {"hidden_size": H, "encoder_fingerprint": "abc"}
  expected = Whitening.fit(MOMENTS, K)
  assert load_whitening(data, "w.npz", n_components=K, **options).fingerprint == expected.fingerprint
  assert load_whitening(data, "w.npz", **options).n_components == H
  share = expected.kept_variance - 1e-9
  assert load_whitening(data, "w.npz", n_components=share, **options).n_components == K


@pytest.mark.parametrize(
  ("data", "changes", "message"),
  [
    (_own(), {"hidden_size": 768}, f"w.npz is for vectors of width {H}, the encoder's have 768"),
    (_own(), {"encoder_fingerprint": "xyz"}, "w.npz was fitted on another encoder's vectors"),
    (_own(), {"n_components": K + 1}, f"needs {K + 1} components, the whitening has {K}"),
    (_npz(kernel=np.eye(H), bias=np.zeros(H)), {"n_components": 0.9}, "holds no variances"),
    (_npz(kernel=np.eye(H)), {}, "w.npz has no float array 'bias'"),
    (_npz(kernel=np.eye(H), bias=np.zeros((H, 1))), {}, "are not"),
    (_npz(kernel=np.eye(H), bias=np.full(H, np.nan)), {}, "bias holds NaN"),
    (b"not a file of arrays", {}, "not a readable"),
  ],
)
def test_a_whitening_file_that_does_not_fit_is_bad_usage(data, changes, message):
  with pytest.raises(UsageError, match=message):
    load_whitening(data, "w.npz", **({"hidden_size": H, "encoder_fingerprint": "abc"} | changes))


def test_applied_a_vector_is_what_a_run_publishes():
  whitening = Whitening.fit(MOMENTS, K)
  unit, _ = normalise(whitening.reduce(RAW))
  np.testing.assert_array_equal(whitening.apply(RAW), unit)
  with pytest.raises(ValueError, match="raw vector 1 has no direction under this whitening"):
    whitening.apply(np.stack([RAW[0], np.full(H, np.nan, np.float32)]))
  for wrong in (RAW[0], RAW[:, 1:]):
    with pytest.raises(ValueError, match=r"expected \[N, 12\]"):
      whitening.apply(wrong)


def test_a_file_is_loaded_by_its_path_ours_or_a_foreign_one(tmp_path):
  whitening = Whitening.fit(MOMENTS, K)
  path = tmp_path / "whitening.npz"
  path.write_bytes(whitening.to_bytes())
  assert Whitening.load(path).fingerprint == Whitening.load(str(path)).fingerprint == whitening.fingerprint
  np.savez(path, kernel=whitening.kernel, bias=whitening.bias)
  assert Whitening.load(path).fingerprint == whitening.fingerprint
  path.write_bytes(b"no zip")
  with pytest.raises(UsageError, match=r"whitening\.npz"):
    Whitening.load(path)
  with pytest.raises(UsageError, match=r"nothing\.npz: cannot be read .*; name a whitening"):
    Whitening.load(tmp_path / "nothing.npz")
