import json

import pytest

from transforms import rejected
from transforms.rejected import RejectedDocument, shown


def test_the_reasons_are_a_stable_interface():
  assert rejected.REASONS == (
    "invalid bytes",
    "NUL character",
    "lone surrogate",
    "invalid JSON",
    "not an object",
    "missing column",
    "null",
    "not a string",
    "wrong number of fields",
    "unclosed quote",
    "document too long",
    "empty id",
    "no tokens",
    "duplicate id",
    "encoder failed",
    "vector not finite",
    "zero vector",
  )


def test_one_json_line_in_ascii():
  document = RejectedDocument("a.txt#5", "a.txt", 5, rejected.LONE_SURROGATE, "", "é \ud800\n\u2028 end")
  line = document.to_json_line()
  assert line == (
    '{"doc_id": "a.txt#5", "file": "a.txt", "position": 5, "reason": "lone surrogate", "detail": "", '
    '"text": "\\u00e9 \\ud800\\n\\u2028 end"}'
  )
  assert RejectedDocument(**json.loads(line)) == document


def test_text_is_cut_to_ten_thousand_characters_and_may_be_unknown():
  assert json.loads(RejectedDocument("i", "f", 0, "null", "", "é" * 10_001).to_json_line())["text"] == "é" * 10_000
  assert json.loads(RejectedDocument("i", "f", 0, "null").to_json_line())["text"] is None


def test_an_unknown_reason_is_our_mistake():
  with pytest.raises(AssertionError, match="because"):
    RejectedDocument("i", "f", 0, "because")


def test_shown():
  assert shown(b"caf\xc3\xa9 \xff\xfe") == "café \\xff\\xfe"
  assert shown("中".encode("gb18030") + b"\xff", "gb18030") == "中\\xff"
  assert shown(b"a" * 50_000) == "a" * 10_000
  assert shown(("中" * 20_000).encode()) == "中" * 10_000
  assert shown("b" * 10_001) == "b" * 10_000
  assert shown(None) is None
