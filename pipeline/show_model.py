"""Say what a checkpoint, an encoder folder or a frozen graph is, for people: a line a thing, for `grep` too."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from pipeline.show import unknown_warning
from transforms.errors import printable

_LABEL = 14
_SOME = 3
_CASING_IS = {
  "stated": "stated by the folder",
  "guessed": "guessed from the vocabulary's letters: a checkpoint does not say",
  "default": "the model's default: nothing there says",
}
_STYLES = {"warning": "yellow", "problem": "bold red"}


Lines = Iterator[tuple[str, str]]


def show_model(description: Mapping[str, Any], console: Console) -> None:
  """Prints what `describe_model` found; what keeps it from being used comes last."""
  console.print(Text(printable(description["path"]), style="bold"), soft_wrap=True)
  lines = {"encoder": _encoder_lines, "graph": _graph_lines}.get(description["kind"], _checkpoint_lines)
  for label, text in lines(description):
    # Not wrapped: a line is what people grep for, and a terminal wraps by itself.
    console.print(Text(f"{label:<{_LABEL}}{printable(text)}".rstrip(), style=_STYLES.get(label, "")), soft_wrap=True)
  stated = ((label, text) for label in ("note", "warning", "problem") for text in description.get(f"{label}s", ()))
  for label, text in (*_sample_verdicts(description), *stated):
    console.print(Text(f"{label}: {printable(text)}", style=_STYLES.get(label, "")), soft_wrap=True)


def _checkpoint_lines(found: Mapping[str, Any]) -> Lines:
  yield "kind", f"{found['kind']} checkpoint, {_usable(found['can_be_frozen'], 'frozen')}"
  yield "model", _model(found, found["model"]) or "not known: there is no configuration that could be read"
  if found["weights"] and not found["model"]:
    yield "", f"by its weights: {_model(found, found['weights'])}"
  if found["variables"]:
    yield from _variable_lines(found["variables"])
  yield from _token_lines(found)
  if found["freezes_to"]:
    yield from _freezing_lines(found["freezes_to"])
  stated = [f"{name.replace('_', ' ')} {_words(value)}" for name, value in found["stated"].items() if value]
  yield "stated", "; ".join(stated) or "neither pooling nor length"
  if defaults := found["defaults"]:
    yield "by default", f"{readout_words(defaults)}, {defaults['max_seq_length']} tokens"


def _encoder_lines(found: Mapping[str, Any]) -> Lines:
  yield "kind", f"encoder, {_usable(found['can_be_used'], 'used')}"
  if found["fingerprint"]:
    yield "fingerprint", found["fingerprint"]
    yield "source", f"{found['source']['name']} ({found['source']['kind']})"
    yield (
      "model",
      _model(found, found["config"]) or f"a graph that was frozen elsewhere, read at {found['graph']['output']}",
    )
    yield "vector", f"{found['vector_size']} numbers: {readout_words(found['readout'])}"
    if head := found["head"]:
      yield "head", f"{head['kind']}, {len(head['labels'])} labels: {_some(head['labels'], len(head['labels']))}"
    yield "length", f"{found['max_seq_length']} tokens"
    yield from _token_lines(found)
    yield "made by", ", ".join(f"{name} {version}" for name, version in found["versions"].items())
  for name, file in found["files"].items():
    yield name, _file(file) if file else "cannot be read"
  if test := found["self_test"]:
    yield "self-test", f"passed: off by {test['error']:.1e}, {test['tolerance']:.1e} allowed, {test['cases']} sequences"
  else:
    yield "self-test", "not passed, or not run: see the problems"


def _graph_lines(found: Mapping[str, Any]) -> Lines:
  yield "kind", f"TensorFlow graph, {_usable(found['can_be_frozen'], 'made an encoder')}"
  yield "size", f"{_megabytes(found['bytes'])}, {found['nodes']:,} nodes, {len(found['operations'])} kinds of operation"
  for key in ("inputs", "outputs"):
    for i, tensor in enumerate(found[key]):
      yield "" if i else key, _tensor(tensor)
  if defaults := found["defaults"]:
    names = ("input_ids", "input_mask", "token_type_ids", "output")
    ends = [f"{name.replace('_', ' ')} {defaults[name]}" for name in names if defaults[name]]
    yield "by default", f"{', '.join(ends)} ({defaults['output_why']})"


def _variable_lines(found: Mapping[str, Any]) -> Lines:
  unused, missing = found["unused"], found["missing"]
  yield (
    "variables",
    (
      f"{found['used']:,} used, with {found['numbers']:,} numbers; "
      f"{sum(group['count'] for group in unused.values()):,} unused, {len(missing):,} missing"
    ),
  )
  if missing:
    yield "  missing", _some(missing, len(missing))
  for what, group in unused.items():
    yield "  unused", f"{group['count']:,} {what}: {_some(group['names'], group['count'])}"


def _token_lines(found: Mapping[str, Any]) -> Lines:
  if vocabulary := found["vocabulary"]:
    yield "vocabulary", f"{vocabulary['tokens']:,} tokens, {'with' if vocabulary['cased'] else 'without'} capitals"
  if settings := found["tokenizer"]:
    why = f" ({_CASING_IS[settings['casing_is']]})" if "casing_is" in settings else ""
    chinese = "" if settings.get("tokenize_chinese_chars", True) else ", Chinese characters in words"
    fits = ", fits the vocabulary" if vocabulary and vocabulary["casings"][0]["fits"] else ""
    yield "casing", f"{_casing(settings)}{chinese}{why}{fits}"
  # Numbers that are as they should be say nothing to a person.
  for i, casing in enumerate(vocabulary["casings"] if vocabulary and not vocabulary["casings"][0]["fits"] else ()):
    yield (
      "" if i else "own words",
      (
        f"{_casing(casing)}: {casing['unknown']:.1%} unknown where they begin a sentence, {casing['in_pieces']:.1%} in "
        f"pieces, {casing['unused']:,} tokens that can never occur"
      ),
    )
  if (sample := found["sample"]) and "problem" not in sample:
    yield "sample", f"{sample['texts']:,} texts of {sample['file']}"
    for casing in sample["casings"]:
      yield (
        "",
        (
          f"{_casing(casing)}: {_percent(casing['truncated'], sample['texts'])} of the texts cut at "
          f"{sample['max_seq_length']} tokens; of the {casing['tokens']:,} tokens kept "
          f"{_percent(casing['unknown'], casing['tokens'])} are unknown"
          + (f", {casing['empty']:,} without a token" if casing["empty"] else "")
        ),
      )


def _sample_verdicts(found: Mapping[str, Any]) -> Lines:
  """Yields what to do about the texts of a sample, with the casing that is taken."""
  if not (sample := found.get("sample")):
    return
  if "problem" in sample:
    yield "problem", f"--sample: {sample['problem']}"
    return
  taken = sample["casings"][0]
  # Where the casing does not fit, that is why, and is warned of.
  if found["vocabulary"]["casings"][0]["fits"] and (warning := unknown_warning(taken["unknown"], taken["tokens"])):
    yield "warning", warning
  model = found.get("model") or found.get("config")
  if model and 2 * taken["truncated"] > sample["texts"]:
    positions = model.get("max_position_embeddings")  # an XLNet has no limit
    more = "takes any number of tokens: give a larger --max-seq-length"
    if positions is not None:
      more = f"has more positions: --max-seq-length goes up to {positions}"
    if positions is None or positions > sample["max_seq_length"]:
      yield "note", f"more than half of the texts are cut, and the model {more}"


def _freezing_lines(found: Mapping[str, Any]) -> Lines:
  first, last = found["layers"]
  yield "freezes to", f"--layers {first} to {last}; --pooling {', '.join(found['poolings'])}"
  yield "", f"--combine {', '.join(found['combines'])}"
  if labels := found["labels"]:
    yield "", f"--head softmax or sigmoid over {len(labels)} labels: {_some(labels, len(labels))}"
  for name, why in found["not"].items():
    if name != "fused" or found["mix_variables"]:  # hardly any checkpoint has one, or should
      yield "", f"not {name}: {why}"


def _usable(usable: bool, done: str) -> str:
  return f"can be {done}" if usable else f"cannot be {done}: see the problems"


def _model(found: Mapping[str, Any], sizes: Mapping[str, Any] | None) -> str:
  """The architecture and its sizes; nothing without any."""
  if not sizes:
    return ""
  words = [found["architecture"], f"{sizes['layers']} layers", f"hidden size {sizes['hidden_size']}"]
  if "heads" in sizes:
    words.append(f"{sizes['heads']} attention heads")
  if positions := sizes.get("max_position_embeddings"):
    words.append(f"{positions} positions")
  words.append(f"{sizes['vocab_size']:,} tokens")
  return ", ".join(words + ([f"activation {sizes['activation']}"] if "activation" in sizes else []))


def readout_words(found: Mapping[str, Any]) -> str:
  """Returns in words which vector is read off: `found` has the fields of `Readout`."""
  layers = found["layers"]
  combined = f", {found['combine']} of layers" if len(layers) > 1 else " of layer" if layers else ""
  without = ", special tokens not counted" if found["exclude_special_tokens"] else ""
  return f"{found['pooling']}{combined} {_words(layers)}".rstrip() + without


def _casing(settings: Mapping[str, Any]) -> str:
  keeps = settings["keep_accents"] if "keep_accents" in settings else not settings["strip_accents"]
  accents = "kept" if keeps else "stripped"
  return f"{'lower-cased' if settings['lowercase'] else 'as it stands'}, accents {accents}"


def _file(file: Mapping[str, Any]) -> str:
  state = {True: "as frozen", False: "CHANGED since it was frozen", None: "as frozen or not: nobody says"}
  return f"{_megabytes(file['bytes'])}, sha256 {file['sha256'][:12]}, {state[file['as_frozen']]}"


def _tensor(tensor: Mapping[str, Any]) -> str:
  if "type" not in tensor:
    return str(tensor["name"])
  sizes = tensor["shape"]
  shape = "of unknown shape" if sizes is None else f"[{', '.join('?' if n is None else str(n) for n in sizes)}]"
  return f"{tensor['name']} {tensor['type']} {shape}"


def _megabytes(size: int) -> str:
  return f"{size / 1e6:,.1f} MB"


def _percent(number: int, total: int) -> str:
  return f"{number / total:.1%}" if total else "0%"


def _some(names: Sequence[str], count: int) -> str:
  """Names a few, the first of `count`."""
  return ", ".join(names[:_SOME]) + (f" and {count - _SOME:,} more" if count > _SOME else "")


def _words(value: Any) -> str:
  return " ".join(map(str, value)) if isinstance(value, tuple | list) else "" if value is True else str(value)
