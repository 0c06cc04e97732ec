"""Sizes that shape inference of ONNX does not compare."""

import onnx_ir as ir
import pytest

from embedl_deploy import check
from support.onnx_files import OnnxFile

INT64 = ir.DataType.INT64

WRONG = {
    "channels": (
        lambda f: f.conv(f.input(1, 5, 8, 8), f.weight(4, 3, 3, 3)),
        "the number of channels of its input is 5; its weight [4, 3, 3, 3] in 1 group(s) is for 3",
    ),
    "groups": (
        lambda f: f.conv(f.input(1, 6, 8, 8), f.weight(5, 3, 3, 3), group=2),
        "its weight [5, 3, 3, 3] has 5 output channels, which cannot be split into 2 groups",
    ),
    "bias": (
        lambda f: f.conv(f.input(1, 3, 8, 8), f.weight(4, 3, 3, 3), f.weight(5)),
        "the size of its bias is 5; the number of output channels is 4",
    ),
    "kernel": (
        lambda f: f.conv(f.input(1, 3, 8, 8), f.weight(4, 3, 3, 3), kernel_shape=[5, 5]),
        "its kernel_shape is [5, 5], its weight [4, 3, 3, 3]",
    ),
    "quantized": (
        lambda f: f.conv(f.qdq(f.input("n", 5, 8, 8)), f.qdq_weight(4, 3, 3, 3)),
        "the number of channels of its input is 5; its weight [4, 3, 3, 3] in 1 group(s) is for 3",
    ),
    "transposed": (
        lambda f: f.node("ConvTranspose", f.input(1, 3, 8, 8), f.weight(4, 3, 3, 3)),
        "the number of channels of its input is 3; its weight [4, 3, 3, 3] is for 4",
    ),
    "bias of a transposed one": (
        lambda f: f.node("ConvTranspose", f.input(1, 3, 8, 8), f.weight(3, 4, 3, 3), f.weight(3)),
        "the size of its bias is 3; the number of output channels is 4",
    ),
    "instance norm": (
        lambda f: f.node("InstanceNormalization", f.input(1, 3, 8, 8), f.weight(4), f.weight(3)),
        "the size of its scale is 4; the number of channels is 3",
    ),
    "group norm": (
        lambda f: f.node("GroupNormalization", f.input(1, 6, 8), f.weight(6), f.weight(4), num_groups=2),
        "the size of its bias is 4; expected 2 groups or 6 channels",
    ),
    "layer norm": (
        lambda f: f.node("LayerNormalization", f.input("n", 3, 8), f.weight(4)),
        "its scale [4] cannot be broadcast to [8]",
    ),
    "Gemm": (
        lambda f: f.node("Gemm", f.input(2, 8), f.weight(8, 5), f.weight(4)),
        "its bias [4] cannot be broadcast to [2, 5]",
    ),
    "PRelu": (
        lambda f: f.node("PRelu", f.input(2, 8, 4), f.weight(3)),
        "its slope [3] cannot be broadcast to [2, 8, 4]",
    ),
    "LSTM": (
        lambda f: f.node("LSTM", f.input(2, 1, 8), f.weight(1, 16, 7), f.weight(1, 16, 4), outputs=3, hidden_size=4)[0],
        "its W is [1, 16, 7]; expected [1, 16, 8] for a hidden size of 4",
    ),
    "GRU": (
        lambda f: f.node("GRU", f.input(2, 1, 8), f.weight(1, 12, 8), f.weight(2, 12, 4), outputs=2, hidden_size=4)[0],
        "its R is [2, 12, 4]; expected [1, 12, 4] for a hidden size of 4",
    ),
    "Reshape": (
        lambda f: f.node("Reshape", f.input(2, 8), f.constant([3, 5], INT64)),
        "its input [2, 8] has 16 values, which do not fit into [3, 5]",
    ),
    "DepthToSpace": (
        lambda f: f.node("DepthToSpace", f.input(1, 6, 2, 2), blocksize=2),
        "its input has 6 channels, which cannot be split into blocks of 2×2",
    ),
}

RIGHT = {
    "convolution in groups": lambda f: f.conv(f.input("n", 6, 8, 8), f.weight(4, 3, 3, 3), f.weight(4), group=2),
    "open channels": lambda f: f.conv(f.input(1, "c", 8, 8), f.weight(4, 3, 3, 3)),
    "transposed in groups": lambda f: f.node(
        "ConvTranspose", f.input(1, 4, 8, 8), f.weight(4, 3, 3, 3), f.weight(6), group=2
    ),
    "layer norm of two dimensions": lambda f: f.node(
        "LayerNormalization", f.input(2, 3, 8), f.weight(3, 8), f.weight(8), axis=-2
    ),
    "Gemm": lambda f: f.node("Gemm", f.input(2, 8), f.weight(8, 5), f.weight(2, 1)),
    "slope of a channel": lambda f: f.node("PRelu", f.input(2, 8, 4), f.weight(8, 1)),
    "a size that is computed": lambda f: f.node("Reshape", f.input(2, 8), f.constant([0, 4, -1], INT64)),
    "an open batch": lambda f: f.node("Reshape", f.input("n", 8), f.constant([-1, 3], INT64)),
    "nothing": lambda f: f.node("Reshape", f.input(0, 8), f.constant([0, 2, 4], INT64)),
}


@pytest.mark.parametrize("case", WRONG)
def test_sizes_that_do_not_fit(case, backend):
    backend()
    build, message = WRONG[case]
    file = OnnxFile()
    report = check(file.model(build(file)))
    assert [(finding.rule, finding.message) for finding in report.findings] == [("ONNX-2", message)]
    assert not report.ok


@pytest.mark.parametrize("case", RIGHT)
def test_sizes_that_fit(case, backend):
    backend()
    file = OnnxFile()
    assert check(file.model(RIGHT[case](file))).findings == ()
