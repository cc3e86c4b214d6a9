"""In which precision a run encodes: as asked, or with `--precision auto` decided once, when it is submitted.

What is decided is part of the encoder's fingerprint, by which workers load it: none of them decides anew.
"""

from collections.abc import Callable, Collection
from pathlib import Path

from pipeline.dataset import Dataset
from pipeline.dataset_encoder import encoder_of
from pipeline.options import AUTO, EmbedOptions
from pipeline.planning import find_published, read_base
from transforms.encoder import Encoder, EncoderSpec
from transforms.self_test import SelfTestError, is_float32_in_fact
from transforms.storage import Storage

# As Linux names what x86 processors multiply bfloat16 with. Of others nothing is known, and float32 is believed in.
BFLOAT16_FLAGS = frozenset({"amx_bf16", "avx512_bf16"})
_WHY_FLOAT32 = " (TF_ENABLE_ONEDNN_OPTS=0, a GPU, or nothing to multiply?)"


def processor_flags() -> frozenset[str]:
  """Returns what the first processor of this machine can do, by Linux's names; nothing where there is no such list."""
  try:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
  except OSError:
    return frozenset()
  return frozenset(next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), ()))


def choose_precision(
  options: EmbedOptions,
  spec: EncoderSpec,
  load: Callable[[EncoderSpec], Encoder],
  say: Callable[[str], None],
  flags: Collection[str] | None = None,
) -> EncoderSpec:
  """Returns the encoder in the precision of the run; says what was decided, or will be slow.

  `auto` stays with a dataset that is of this encoder already: no corpus is encoded anew because a machine changed.

  Args:
    options: what is asked.
    spec: the encoder's, as it was frozen.
    load: loads and tests the encoder that a spec is of.
    say: takes a line.
    flags: what the processor can do; this machine's by default.
  """
  in_float32, in_bfloat16 = spec.at("float32"), spec.at("bfloat16")
  fast = BFLOAT16_FLAGS.intersection(processor_flags() if flags is None else flags)
  if options.precision != AUTO:
    chosen = in_bfloat16 if options.precision == "bfloat16" else in_float32
  elif known := {s.fingerprint: s for s in (in_float32, in_bfloat16)}.get(_encoder_of(options.dataset) or ""):
    chosen = known
    say(f"precision {chosen.precision}: the dataset's")
  else:
    chosen, why = _decide(in_float32, in_bfloat16, fast, load)
    say(f"precision {chosen.precision}: {why}")
  if chosen.precision == "bfloat16" and not fast:
    say(
      "warning: this processor has no bfloat16 instructions (amx_bf16, avx512_bf16): where it encodes, that is slower "
      "than float32, and rounds otherwise than others do; what the self-test lets through is taken all the same"
    )
  return chosen


def warn_of_float32(encoder: Encoder, say: Callable[[str], None]) -> None:
  """Says so where what was decided on is not what this machine computes."""
  error = encoder.self_test_error
  if error is not None and is_float32_in_fact(encoder.spec, error):
    say(f"warning: precision bfloat16: TensorFlow computes float32 here, as slowly{_WHY_FLOAT32}")


def _decide(
  in_float32: EncoderSpec, in_bfloat16: EncoderSpec, fast: Collection[str], load: Callable[[EncoderSpec], Encoder]
) -> tuple[EncoderSpec, str]:
  """Returns the encoder in the faster precision that is right, and why it is that one."""
  if not fast:
    return in_float32, f"this processor has none of {', '.join(sorted(BFLOAT16_FLAGS))}"
  try:
    error = load(in_bfloat16).self_test_error
  except SelfTestError as failure:
    return in_float32, f"in bfloat16 its vectors are not good enough ({failure.finding})"
  assert error is not None, "what is loaded from a folder tests itself"
  if is_float32_in_fact(in_bfloat16, error):  # it would be no faster, and workers might compute what it is called
    return in_float32, f"asked for bfloat16, TensorFlow computes the same here{_WHY_FLOAT32}"
  return in_bfloat16, f"this processor has {', '.join(sorted(fast))}; lowest cosine of the self-test {1 - error:.5f}"


def _encoder_of(url: str) -> str | None:
  """Returns the fingerprint of a dataset's encoder; None where there is no dataset yet, or it cannot be told."""
  if not Storage.at(url).exists("dataset.json"):
    return None
  published, dataset = find_published(url), Dataset.open(url)
  return encoder_of(dataset, published, read_base(dataset, published)[0])
