"""Two engines side by side."""

import pytest

from embedl_deploy.engine import LayerKind, compare
from embedl_deploy.errors import InputError
from support.engines import layer, report, tensor

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


def test_a_part_that_only_one_engine_knows_counts_for_the_module_around_it():
    fused = report(
        layer("a", modules=("block.conv1.conv",)),
        layer("b", modules=("block.conv1.weight_fake_quant",)),
        layer("c", modules=("block.add.inner",)),
        layer("d", modules=("other.part",)),
    )
    plain = report(
        layer("a", modules=("block.conv1",)), layer("c", modules=("block.add",)), layer("d", modules=("block",))
    )
    for first, second, turn in ((plain, fused, 1), (fused, plain, -1)):
        rows = {row.module: row.kernels[::turn] for row in compare(first, second).by_module}
        assert rows == {"block.conv1": (1, 2), "block.add": (1, 1), "block": (1, 0), "other.part": (0, 1)}


def test_what_both_know_is_not_folded():
    both = (layer("a", modules=("block.conv",)), layer("b", modules=("block",)))
    rows = compare(report(*both), report(*both, layer("c", modules=("block.bn",)))).by_module
    assert {row.module: row.kernels for row in rows} == {"block.conv": (1, 1), "block": (1, 1), "block.bn": (0, 1)}


def test_verdicts():
    assert not compare(HALF, INT8).is_worth_it
    assert "int8.onnx moves 0% more bytes" in compare(HALF, INT8).verdict
    assert "take fp16.onnx" in compare(HALF, INT8).verdict
    assert "small.onnx moves 75% fewer bytes" in compare(HALF, SMALLER).verdict
    other = report(layer("a"), target="other")
    assert compare(HALF, other).verdict.startswith("Not comparable: Acme compiler 1 for edge against")


def test_open_sizes():
    usually = tensor(-1, 100, elements=400)
    known = report(layer("a", inputs=(usually,)), model="open.onnx", usual_inputs=(tensor(4, 100),))
    unknown = report(layer("a", inputs=(tensor(-1, 100),)), model="unknown.onnx")
    assert "open.onnx moves 25% more bytes" in compare(HALF, known).verdict
    assert "\nat the shapes           fixed            t 4×100\n" in str(compare(HALF, known))
    for pair in ((HALF, unknown), (unknown, HALF)):
        assert "Not comparable: the size of 1 open tensors that layers of unknown.onnx" in compare(*pair).verdict
        assert not compare(*pair).is_worth_it


def test_printed():
    text = str(compare(HALF, INT8))
    assert "fp16.onnx" in text
    assert "convolution in int8" in text
    assert "conv: 0 → 1 kB, 1 → 2 kernels" in text


@pytest.mark.parametrize("arguments", [(HALF, None), ("x", HALF)])
def test_other_things_are_refused(arguments):
    with pytest.raises(InputError, match="expected an EngineReport"):
        compare(*arguments)
