"""What a check costs grows as the file does: counted in calls, not in time."""

import pytest

from embedl_deploy import check
from embedl_deploy.compiling.float_layers import explain_float_layers
from embedl_deploy.compiling.sources import with_sources
from embedl_deploy.engine import EngineLayer, EngineReport, EngineTensor, LayerKind
from support.call_counts import calls
from support.onnx_files import OnnxFile


def quantized(file, x):
    return file.conv(file.qdq(x), file.qdq_weight(8, 8, 1, 1))


def attention(file, x):
    scores = file.node("Mul", file.node("MatMul", x, x), file.constant(0.5))
    return file.node("MatMul", file.node("Softmax", scores), x)


def residual(file, x):
    return file.node("Relu", file.node("Add", x, file.node("Add", x, file.constant(0.5))))


def unknown(file, x):
    return file.node("Own", x, domain="of.mine")


def chain(block, count):
    file = OnnxFile(of_mine=1)
    x = file.input(1, 8, 8, 8)
    for _ in range(count):
        x = block(file, x)
    return file.model(x)


def checked(model):
    report = check(model, backend="tensorrt")
    return str(report), report.to_dict()


def explained(model):
    tensor = EngineTensor("t", (1, 8, 8, 8), "float16")
    names = [node.name for node in model.graph if node.op_type == "Conv"]
    layers = [EngineLayer(name, LayerKind.CONVOLUTION, "conv", (tensor,), onnx_nodes=(name,)) for name in names]
    report = EngineReport("net.onnx", "c", "t", with_sources(layers, model, {}), 1, 1.0)
    return explain_float_layers(report, model)


@pytest.mark.parametrize(
    ("run", "block"),
    [(checked, quantized), (checked, attention), (checked, residual), (checked, unknown), (explained, quantized)],
    ids=lambda function: function.__name__,
)
def test_ten_times_the_nodes_take_ten_times_the_calls(run, block):
    run(chain(block, 3))
    assert calls(run, chain(block, 100)) < 11 * calls(run, chain(block, 10))
