"""Which ONNX nodes run as one."""

import pytest

from embedl_deploy_sensai_stub.kernels import kernels_of
from support.onnx_files import FLOAT, INT32, OnnxFile

SCALE = 0.0625


def names(file, *outputs):
    return [[node.op_type for node in kernel.nodes] for kernel in kernels_of(file.model(*outputs))]


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (lambda f: f.node("Relu", f.conv(f.input(1, 4, 6, 6), f.weight(4, 4, 3, 3))), [["Conv", "Relu"]]),
        (
            lambda f: f.node("Relu", f.node("Add", f.node("MatMul", f.input(1, 4), f.weight(4, 5)), f.weight(5))),
            [["MatMul", "Add", "Relu"]],
        ),
        (lambda f: f.node("Relu", f.node("Add", f.input(1, 4), f.input(1, 4))), [["Add", "Relu"]]),
        (lambda f: f.node("Flatten", f.qdq(f.input(1, 4, 2, 2), SCALE)), []),
        (lambda f: f.node("Add", f.input(1, 4), f.weight(4)), []),
        (lambda f: f.node("Relu", f.node("MaxPool", f.input(1, 4, 6, 6), kernel_shape=[2, 2])), [["MaxPool"]]),
    ],
    ids=["convolution", "product", "sum", "no computation", "a constant", "a pool takes no ReLU"],
)
def test_kernels(build, expected):
    file = OnnxFile()
    assert names(file, build(file)) == expected


def test_a_result_that_is_read_twice_or_given_out_ends_its_kernel():
    file = OnnxFile()
    y = file.conv(file.input(1, 4, 6, 6), file.weight(4, 4, 3, 3))
    assert names(file, y, file.node("Relu", y)) == [["Conv"]]
    file = OnnxFile()
    y = file.conv(file.input(1, 4, 6, 6), file.weight(4, 4, 3, 3))
    assert names(file, file.node("MaxPool", y, kernel_shape=[2, 2]), file.node("Relu", y)) == [["Conv"], ["MaxPool"]]


@pytest.mark.parametrize(("dtype", "expected"), [(FLOAT, [["Add"]]), (INT32, [])])
def test_a_sum_of_sizes_is_no_kernel(dtype, expected):
    file = OnnxFile()
    x = file.input(2, 4, dtype=dtype)
    total = file.node("Add", x, x)
    total.dtype = dtype
    assert names(file, total) == expected
