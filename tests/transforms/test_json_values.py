from dataclasses import dataclass

import pytest

from transforms.json_values import fingerprint, from_json_value, to_json_value


@dataclass(frozen=True)
class Inner:
  numbers: tuple[float, ...]


@dataclass(frozen=True)
class Outer:
  inner: Inner
  name: str | None
  counts: dict[str, int]
  deep: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True)
class Point:
  x: int
  y: int


@dataclass(frozen=True)
class Circle:
  x: int
  radius: int


@dataclass(frozen=True)
class Drawing:
  shape: Point | Circle
  other: Point | Circle | None = None


VALUE = Outer(Inner((1.0, 2.5)), None, {"a": 1}, ((1, 2), ()))


def test_round_trip():
  assert from_json_value(Outer, to_json_value(VALUE), "x") == VALUE
  assert from_json_value(Outer, to_json_value(VALUE) | {"name": "n"}, "x").name == "n"


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"inner": {"numbers": [1, "2"]}}, r"x.inner.numbers\[1\]: '2' is not float"),
    ({"inner": []}, r"x.inner: '\[\]' is not an object"),
    ({"counts": {"a": True}}, r"x.counts.a: 'True' is not int"),
    ({"name": 1}, r"x.name: '1' is not str"),
    ({"deep": 1}, r"x.deep: '1' is not a list"),
    ({"other": 1}, r"x: unknown other"),
  ],
)
def test_anything_of_another_type_is_named(change, message):
  with pytest.raises(ValueError, match=message):
    from_json_value(Outer, to_json_value(VALUE) | change, "x")


def test_a_missing_field_is_named():
  with pytest.raises(ValueError, match="x: has no counts, inner"):
    from_json_value(Outer, {"name": None, "deep": []}, "x")


def test_the_fingerprint_does_not_depend_on_the_order_of_keys():
  assert fingerprint({"a": 1, "b": (2,)}) == fingerprint({"b": [2], "a": 1})
  assert fingerprint({"a": 1}) != fingerprint({"a": 2})
  assert fingerprint({}) == "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"


@pytest.mark.parametrize("drawing", [Drawing(Point(1, 2)), Drawing(Circle(1, 2), Point(3, 4))])
def test_dataclasses_of_a_union_are_told_apart_by_their_keys(drawing):
  assert from_json_value(Drawing, to_json_value(drawing), "x") == drawing


@pytest.mark.parametrize(
  ("shape", "message"),
  [
    ({"x": 1, "radius": 2, "y": 3}, "x.shape: unknown"),
    ({"radius": 1}, "x.shape: has no x"),
    ({"x": 1, "radius": "2"}, "x.shape.radius: '2' is not int"),
    (7, "x.shape: '7' is not an object"),
    (None, "x.shape: 'None' is not an object"),
  ],
)
def test_what_is_none_of_a_union_is_named(shape, message):
  with pytest.raises(ValueError, match=message):
    from_json_value(Drawing, {"shape": shape, "other": None}, "x")
