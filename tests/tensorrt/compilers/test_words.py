"""What TensorRT says of an engine's layers, read."""

import json

import pytest

from embedl_deploy.engine import EngineTensor, LayerKind
from embedl_deploy.tensorrt.compilers.inspector import layers_in_inspection
from embedl_deploy.tensorrt.compilers.layer_log import layers_in_log

# Lines of the log of TensorRT for RTX 1.7.1, with fewer constants.
CONVOLUTION = (
    "Name: node_conv2d_myl0_1, LayerType: correlation, Inputs: [ { Name: __mye508.1_2_myl0, Dimensions: [1,16,32,32], "
    "Strides: [16384,1,512,16], StrideOrder: [3,0,2,1], Datatype: Int8, Format: (NHWC) Channel major format }], "
    "Constants: [ { Name: __mye871dconst_myl0, Dimensions: [32,16,3,3], Strides: [144,1,48,16], "
    "StrideOrder: [3,0,2,1], Datatype: Int8, Format: (NHWC) Channel major format }, "
    "{ Name: __mye876dconst_myl0, Dimensions: [1,32,1,1], Strides: [32,1,32,32], StrideOrder: [3,0,2,1], "
    "Datatype: Float, Format: (NHWC) Channel major format }], "
    "Outputs: [ { Name: __myln_k_arg__bb1_3_myl0, Dimensions: [1,32,32,32], Strides: [32768,1,1024,32], "
    "StrideOrder: [3,0,2,1], Datatype: Float, Format: (NHWC) Channel major format }], TacticName: __myelin_CASK_STUB, "
    "StreamId: 0, Metadata: [ONNX Layer: node_conv2d]\x1f[ONNX Layer: node_fake_quantize]"
)
WAIT = (
    "Name: __mye14124_myl0_4, LayerType: wait, Inputs: [], Constants: [], Outputs: [], TacticName: , StreamId: 0, "
    "EventId: 1, Metadata: "
)


def kernel(name):
    side = "[ { Name: x, Dimensions: [1,8], Strides: [8,1], StrideOrder: [1,0], Datatype: Half, Format: (Linear) Row }]"
    sides = f"Inputs: {side}, Constants: [], Outputs: {side}"
    return f"Name: {name}, LayerType: kgen, {sides}, TacticName: t, StreamId: 0, Metadata: "


def test_a_layer_of_the_log():
    (layer,) = layers_in_log([f"Layers:\n{CONVOLUTION}", "Engine generation completed"])
    assert (layer.name, layer.type, layer.kind) == ("node_conv2d_myl0_1", "correlation", LayerKind.CONVOLUTION)
    assert layer.inputs == (EngineTensor("__mye508.1_2_myl0", (1, 16, 32, 32), "int8", "(NHWC) Channel major format"),)
    assert [(t.shape, t.dtype) for t in layer.constants] == [((32, 16, 3, 3), "int8"), ((1, 32, 1, 1), "float32")]
    assert [(t.shape, t.dtype) for t in layer.outputs] == [((1, 32, 32, 32), "float32")]
    assert layer.onnx_nodes == ("node_conv2d", "node_fake_quantize")
    assert layer.precision == "int8"


def test_waiting_is_no_kernel():
    (layer,) = layers_in_log([WAIT])
    assert (layer.kind, layer.inputs, layer.onnx_nodes) == (LayerKind.SYNCHRONIZATION, (), ())


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("__myl_TranCast_myl0_3", LayerKind.REFORMAT),
        ("__myl_Move_myl0_0", LayerKind.REFORMAT),
        ("__myl_CastMulMinMaxRounCast_myl0_0", LayerKind.POINTWISE),
        ("conv1_quant", LayerKind.POINTWISE),
        ("_gemm_mha_v2_myl0_5", LayerKind.ATTENTION),
        ("__myl_FcAddAdd_myl0_6", LayerKind.GEMM),
        ("__myl_CastMulFc_myl0_2", LayerKind.GEMM),
        ("__myl_FchAdd_myl0_2", LayerKind.POINTWISE),
    ],
)
def test_generated_kernels(name, kind):
    assert layers_in_log([kernel(name)])[0].kind is kind


def test_an_unknown_form_is_an_error():
    with pytest.raises(ValueError, match="in an unknown form"):
        layers_in_log(["Name: x, LayerType: kgen, and nothing else"])


def test_an_inspection():
    side = {"Name": "x", "Dimensions": [1, 64, 56, 56], "Format/Datatype": "Channel major INT8 format where C % 4 == 0"}
    plain = {
        "Name": "conv1 + relu1",
        "LayerType": "CaskConvolution",
        "ParameterType": "Convolution",
        "Inputs": [side],
        "Outputs": [{**side, "Format/Datatype": "Row major linear FP16 format"}],
        "Weights": {"Type": "Int8", "Count": 4096},
        "Bias": {"Type": "Float", "Count": 0},
        "Metadata": "[ONNX Layer: conv1]\x1e[ONNX Layer: relu1]",
    }
    (layer,) = layers_in_inspection(json.dumps({"Layers": [plain], "Bindings": ["x"]}))
    assert (layer.kind, layer.precision, layer.outputs[0].dtype) == (LayerKind.CONVOLUTION, "int8", "float16")
    assert (layer.weight_bytes, layer.onnx_nodes) == (4096, ("conv1", "relu1"))


@pytest.mark.parametrize("plain", [{"Layers": ["conv1", "relu1"]}, {}, []], ids=["names only", "nothing", "a list"])
def test_an_inspection_without_details(plain):
    with pytest.raises(ValueError, match=r"ProfilingVerbosity\.DETAILED"):
        layers_in_inspection(json.dumps(plain))
