import pytest

from pipeline.options import EmbedOptions, available_threads, default_memory_budget
from transforms.errors import UsageError
from transforms.input_files import ReadOptions
from transforms.vector_table import RESERVED_NAMES


def make_options(**fields):
  return EmbedOptions(inputs=("a.txt",), encoder="enc", dataset="ds", **fields)


def test_defaults_fit_the_machine():
  options = make_options()
  assert options.threads is None and available_threads() >= 1
  assert options.memory_budget == default_memory_budget() > 1 << 27
  assert (options.max_rejected, options.whitening, options.n_components, options.limit) == (0.01, None, None, None)


@pytest.mark.parametrize("name", sorted(RESERVED_NAMES))
def test_a_kept_column_may_not_be_called_as_one_of_ours(name):
  with pytest.raises(UsageError, match=rf"^--keep-columns {name}: Sorbus writes a column of that name itself; rename"):
    make_options(read=ReadOptions(keep_columns=("lang", name)))
  assert make_options(read=ReadOptions(keep_columns=("lang", "text"))).read.keep_columns == ("lang", "text")


@pytest.mark.parametrize("buckets", [0, -4, 3, 12, 1 << 17])
def test_buckets_are_a_power_of_two(buckets):
  with pytest.raises(UsageError, match=rf"^--buckets {buckets}: choose a power of two from 1 to 65536$"):
    make_options(buckets=buckets)


@pytest.mark.parametrize("buckets", [1, 2, 64, 1 << 16])
def test_powers_of_two_are_taken(buckets):
  assert make_options(buckets=buckets).buckets == buckets


@pytest.mark.parametrize("threshold", [-0.1, 1.01, float("nan"), float("inf")])
def test_a_threshold_is_a_probability(threshold):
  with pytest.raises(UsageError, match=rf"^--threshold {threshold:g}: probabilities lie between 0 and 1; choose one"):
    make_options(threshold=threshold)
  assert [make_options(threshold=value).threshold for value in (0.0, 1.0, None)] == [0.0, 1.0, None]


def test_components_without_whitening():
  with pytest.raises(UsageError, match=r"^--n-components with --whitening none: without whitening all components are"):
    make_options(whitening="none", n_components=64)


def test_what_is_no_word_of_ours_is_a_whitening_file():
  assert make_options(whitening="s3://bucket/w.npz").resolve_whitening(True, "fit") == "s3://bucket/w.npz"


@pytest.mark.parametrize(
  ("asked", "for_cosine", "expected"),
  [(None, False, "fit"), (None, True, "none"), ("fit", True, "fit"), ("none", False, "none"), ("fit", False, "fit")],
)
def test_how_the_whitening_is_come_by(asked, for_cosine, expected):
  assert make_options(whitening=asked).resolve_whitening(for_cosine) == expected


@pytest.mark.parametrize(
  ("asked", "for_cosine", "published", "expected"),
  [
    (None, False, "fit", "reuse"),
    (None, True, "fit", "reuse"),
    (None, False, "reuse", "reuse"),
    (None, False, "w.npz", "reuse"),
    ("reuse", False, "fit", "reuse"),
    (None, False, "none", "none"),
    ("reuse", False, "none", "none"),
    ("fit", False, "none", "fit"),
    ("none", False, "fit", "none"),
  ],
)
def test_once_a_run_is_published_its_whitening_is_reused_unless_another_is_asked_for(
  asked, for_cosine, published, expected
):
  assert make_options(whitening=asked).resolve_whitening(for_cosine, published) == expected


def test_the_first_run_has_nothing_to_reuse():
  with pytest.raises(
    UsageError, match=r"^--whitening reuse: ds has no published run to take it from; leave the option"
  ):
    make_options(whitening="reuse").resolve_whitening(for_cosine=False)


@pytest.mark.parametrize("whitening", ["fit", "none"])
def test_what_is_not_reused_is_not_fitted_anew_for_drift(whitening):
  with pytest.raises(UsageError, match=rf"^--refit-above 0.3 with --whitening {whitening}: .*drop one"):
    make_options(whitening=whitening, refit_above=0.3)
  assert [make_options(whitening=w, refit_above=0.3).refit_above for w in (None, "reuse")] == [0.3, 0.3]


def test_components_for_an_encoder_that_is_not_whitened_by_default():
  options = make_options(n_components=64)
  assert options.resolve_whitening(for_cosine=False) == "fit"
  with pytest.raises(
    UsageError, match=r"^--n-components 64: this encoder's default is --whitening none.*whitening fit$"
  ):
    options.resolve_whitening(for_cosine=True)


@pytest.mark.parametrize("name", ["max_rejected", "max_shrink", "max_broken"])
@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_lies_between_0_and_1(name, share):
  with pytest.raises(UsageError, match=rf"^--{name.replace('_', '-')} {share:g}: is no share; choose 0 to 1$"):
    make_options(**{name: share})


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"long_texts": "cut"}, "--long-texts cut: choose truncate, head-tail, windows or chunks"),
    ({"stride": 9}, "--stride 9 with --long-texts truncate: .*; add --long-texts windows or chunks, or drop it"),
    ({"long_texts": "head-tail", "stride": 9}, "--stride 9 with --long-texts head-tail: "),
  ],
)
def test_long_texts(fields, message):
  with pytest.raises(UsageError, match=f"^{message}"):
    make_options(**fields)


def test_a_token_budget_is_something():
  with pytest.raises(UsageError, match=r"^--token-budget 0: choose 1 or more$"):
    make_options(token_budget=0)


def test_credentials_for_beam_are_refused_by_name():
  for flags in (("--s3_secret_access_key=pa55",), ("--job_name=x", "--s3_session_token", "pa55")):
    with pytest.raises(
      UsageError, match=r"^behind '--': 's3_\w+' is a credential, which would be sent along"
    ) as caught:
      EmbedOptions(inputs=("a",), encoder="e", dataset="d", beam_options=flags)
    assert "pa55" not in str(caught.value)
  EmbedOptions(inputs=("a",), encoder="e", dataset="d", beam_options=("--dataflow_kms_key=projects/p/keys/k",))
