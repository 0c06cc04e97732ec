"""Two engines side by side."""

import pytest

from embedl_deploy.engine import LayerKind, compare
from embedl_deploy.errors import InputError
from support.engines import layer, report

HALF = report(layer("a", modules=("conv",)), layer("b", modules=("fc",)), model="fp16.onnx")
INT8 = report(
    layer("q", LayerKind.POINTWISE, modules=("conv",)),
    layer("a", dtype="int8", modules=("conv",)),
    layer("b", dtype="int8", modules=("fc",)),
    model="int8.onnx",
)
SMALLER = report(layer("a", dtype="int8", modules=("conv",)), model="small.onnx")


def test_by_module_the_largest_increase_first():
    rows = compare(HALF, INT8).by_module
    assert [(row.module, row.kernels, row.activation_bytes) for row in rows] == [
        ("conv", (1, 2), (400, 600)),
        ("fc", (1, 1), (400, 200)),
    ]


def test_verdicts():
    assert not compare(HALF, INT8).is_worth_it
    assert "int8.onnx moves 0% more bytes" in compare(HALF, INT8).verdict
    assert "take fp16.onnx" in compare(HALF, INT8).verdict
    assert "small.onnx moves 75% fewer bytes" in compare(HALF, SMALLER).verdict
    other = report(layer("a"), target="other")
    assert compare(HALF, other).verdict.startswith("Not comparable: Acme compiler 1 for edge against")


def test_printed():
    text = str(compare(HALF, INT8))
    assert "fp16.onnx" in text
    assert "convolution in int8" in text
    assert "conv: 0 → 1 kB, 1 → 2 kernels" in text


@pytest.mark.parametrize("arguments", [(HALF, None), ("x", HALF)])
def test_other_things_are_refused(arguments):
    with pytest.raises(InputError, match="expected an EngineReport"):
        compare(*arguments)
