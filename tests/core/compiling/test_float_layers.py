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


def test_a_weight_alone_is_no_fault():
    """Weight-only quantization, stored or quantized in the file; a product of two tensors is none."""
    text = """
    <ir_version: 8, opset_import: ["" : 18, "acme" : 1]>
    net (float[2,4] x, float[2,4] k, float s, int8 z) => (float[2,4] y)
    <int8[4,4] i = {SIXTEEN}, float[4,4] w = {SIXTEEN}> {
        wq = QuantizeLinear(w, s, z)
        wd = DequantizeLinear(SOURCE, s, z)
        kq = QuantizeLinear(k, s, z)
        t = Transpose(wd)
        y = MatMul(x, t)
    }
    """.replace("SIXTEEN", ", ".join("1" * 16))

    def reason(source, through="t = Transpose(wd)"):
        made = onnx.parser.parse_model(text.replace("SOURCE", source).replace("t = Transpose(wd)", through))
        model = ir.serde.deserialize_model(made)
        for node in model.graph:
            node.name = node.outputs[0].name
        (entry,) = explain_float_layers(report(layer("kernel", LayerKind.GEMM, onnx_nodes=("y",))), model)
        return entry.reason

    alone = "weight-only: the weight is stored as int8, the input is in float, and so is the product, as meant"
    assert [reason("i"), reason("wq")] == [alone, alone]
    assert reason("kq") == "the file quantizes only one side: the input has no quantizer"
    for through in ("t = Cast<to = 1>(wd)", "t = acme.TheirDequantizeLinear(i)"):  # a compiler's own is one, too
        assert reason("i", through) == alone
    text = text.replace("Transpose(wd)", "Transpose(w)")
    assert reason("i") == "not quantized in the file", "a weight in float is no weight-only quantization"
