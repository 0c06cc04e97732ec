"""What a check costs grows as the file does: counted in calls, not in time."""

import pytest

from embedl_deploy import check
from support.call_counts import calls
from support.onnx_files import OnnxFile
from support.onnxruntime_files import conv, numbers, qdq, weight


def convolutions(f, x):
    return qdq(f, f.node("Relu", conv(f, x, weight(f, 8, 8, 3, 3))), zero=0)


def residuals(f, x):
    return qdq(f, f.node("Add", qdq(f, conv(f, x, weight(f, 8, 8, 3, 3))), x))


def moved(f, x):
    return f.node("Transpose", f.node("Reshape", x, numbers(f, 1, 8, 6, 6)), perm=[0, 1, 3, 2])


def pooled(f, x):
    return f.node("MaxPool", x, kernel_shape=[1, 1])


def flattened(f, x):
    return f.node("Reshape", f.node("Flatten", x), numbers(f, 1, 8, 6, 6))


def added(f, x):
    return f.node("Add", x, f.weight(8, 1, 1))


def checked(model):
    report = check(model, backend="onnxruntime")
    return str(report), report.to_dict()


def chain(block, count):
    f = OnnxFile()
    x = qdq(f, f.input(1, 8, 6, 6))
    for _ in range(count):
        x = block(f, x)
    return f.model(qdq(f, x))


@pytest.mark.parametrize(
    "block", [convolutions, residuals, moved, pooled, flattened, added], ids=lambda block: block.__name__
)
def test_ten_times_the_nodes_take_ten_times_the_calls(block):
    checked(chain(block, 3))
    assert calls(checked, chain(block, 100)) < 11 * calls(checked, chain(block, 10))
