"""Two engines side by side."""

import pytest

from embedl_deploy.engine import LayerKind, Timing, compare
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


def timed(model, times, threads=1, conv=1e-3, fc=2e-3):
    """A report of two layers that move as much as HALF's, whatever they take."""
    layers = (layer("a", modules=("conv",), seconds=conv), layer("b", modules=("fc",), seconds=fc))
    return report(*layers, model=model, timing=Timing(times, threads))


SLOW = timed("slow.onnx", (4e-3, 4.1e-3, 3.9e-3))
FAST = timed("fast.onnx", (2e-3, 2.1e-3, 1.9e-3), conv=1.5e-3, fc=5e-4)


def test_milliseconds_decide_where_both_were_timed_in_the_same_way():
    found = compare(SLOW, FAST)
    assert found.milliseconds_decide and found.is_worth_it
    assert found.verdict == ("fast.onnx takes 2.00 ms, slow.onnx 4.00 ms with Acme compiler 1 on edge: 2.00 × as fast.")
    back = compare(FAST, SLOW)
    assert not back.is_worth_it
    assert back.verdict.endswith(": 2.00 × the time; take fast.onnx.")
    assert ["a", "run", "4.00", "ms", "2.00", "ms"] in [line.split() for line in str(found).splitlines()]
    assert [(row.module, row.seconds) for row in found.by_module] == [("conv", (1e-3, 1.5e-3)), ("fc", (2e-3, 5e-4))]
    assert "\n  conv: 1.00 ms → 1.50 ms, 1 → 1 kernels\n" in str(found)
    assert found.to_dict()["by_module"][0]["seconds"] == (1e-3, 1.5e-3)


@pytest.mark.parametrize("other", [HALF, timed("two.onnx", (1e-3,), threads=2)])
def test_other_ways_of_timing_decide_nothing(other):
    found = compare(other, FAST)
    assert not found.milliseconds_decide
    assert "moves" in found.verdict
    assert all(row.seconds is None for row in found.by_module)


def test_noise_is_no_difference():
    near = timed("near.onnx", (3.95e-3, 4.05e-3, 4.0e-3, 3.9e-3, 4.2e-3))
    assert compare(SLOW, near).verdict.endswith("no difference that shows, because runs of one engine vary as much.")


def test_printed():
    text = str(compare(HALF, INT8))
    assert "fp16.onnx" in text
    assert "convolution in int8" in text
    assert "conv: 0 → 1 kB, 1 → 2 kernels" in text


@pytest.mark.parametrize("arguments", [(HALF, None), ("x", HALF)])
def test_other_things_are_refused(arguments):
    with pytest.raises(InputError, match="expected an EngineReport"):
        compare(*arguments)
