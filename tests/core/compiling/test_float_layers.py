"""Reasons why a layer is in float come from the compiler, or from what the file shows; none is made up."""

import onnx
import onnx_ir as ir
import pytest

from embedl_deploy.compiling.float_layers import explain_float_layers
from embedl_deploy.engine import EngineTensor, LayerKind
from support.engines import layer, report

TEXT = """
<ir_version: 8, opset_import: ["" : 18]>
net (float[1,4,8,8] x, float[4,2,3,3] w, float s, int8 z) => (float[1,4,6,6] y) {
    xq = QuantizeLinear(x, s, z)
    xd = DequantizeLinear(xq, s, z)
    wq = QuantizeLinear(w, s, z)
    wd = DequantizeLinear(wq, s, z)
    y = Conv <group = 2> (xd, WEIGHT)
}
"""


def found(weight, reason=""):
    model = ir.serde.deserialize_model(onnx.parser.parse_model(TEXT.replace("WEIGHT", weight)))
    for node in model.graph:
        node.name = node.outputs[0].name
    floating = (EngineTensor("x", (1, 4, 8, 8), "float16"),)
    made = layer("kernel", LayerKind.CONVOLUTION, inputs=floating, onnx_nodes=("y",), reason=reason)
    (entry,) = explain_float_layers(report(made), model)
    return entry.reason


@pytest.mark.parametrize(
    ("weight", "reason", "told"),
    [
        ("wd", "", "quantized in the file; why the compiler does not follow is not said"),
        ("wd", "no kernel for two groups", "the compiler: no kernel for two groups"),
        ("w", "", "the file quantizes only one side: the weight has no quantizer"),
    ],
    ids=["silent", "told", "one side"],
)
def test_reasons(weight, reason, told):
    assert found(weight, reason) == told
