import pytest

from benchmarks.operations import OTHER, kind_of, operation_of


@pytest.mark.parametrize(
  "label, kind",
  [
    ("bert/a = _MklNativeFusedMatMul(x, y)", "dense layers, with the activation and the sum that are fused"),
    ("bert/MatMul/b = BatchMatMulV2(x, y)", "products of attention"),
    ("bert/LayerNorm/c = Cast(x)", OTHER),  # by its type, not by its name
    ("[CPU] no operation", OTHER),
  ],
)
def test_an_operation_is_counted_by_its_type(label, kind):
  assert kind_of(operation_of(label)) == kind
