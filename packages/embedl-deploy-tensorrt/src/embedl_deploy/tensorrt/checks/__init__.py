"""The rules that ONNX files have to keep for TensorRT, in the order of their ids.

``TRT-Q…`` are about explicit quantization, ``TRT-O…`` about operators and types. Where a docstring names TensorRT for
RTX 1.7, the rule's example was given to that compiler (parser and builder 1.7.1, SM89), and what it did is written
there. Nothing was run on a GPU. What full TensorRT does is taken from NVIDIA's documentation and its maintainers'
answers.
"""

from embedl_deploy.backend import Rule
from embedl_deploy.tensorrt.checks.attention import AttentionScales, LayerNormInFloat
from embedl_deploy.tensorrt.checks.formats import FourBitsAreWeights, NumberFormats, OperatorSetVersion, ZeroPoints
from embedl_deploy.tensorrt.checks.inputs import ActivationsPerTensor, AllInputsOrNone
from embedl_deploy.tensorrt.checks.kernels import DepthwiseInt8, Fp8Convolutions, GroupedInt8, TransposedConvolutions
from embedl_deploy.tensorrt.checks.operators import IntegerOperators, Operators, Types
from embedl_deploy.tensorrt.checks.placement import (
    BeforeActivation,
    BetweenConvAndRelu,
    BothAddendsQuantized,
    OneSideOfPoolOrAdd,
)
from embedl_deploy.tensorrt.checks.refused import Variants
from embedl_deploy.tensorrt.checks.scales import ScaleShapes, ScaleTypes, ScaleValues
from embedl_deploy.tensorrt.checks.sharing import CastAfterDequantize, ConcatScales, SiblingScales
from embedl_deploy.tensorrt.checks.weights import QuantizedBias, StoredWeights
from embedl_deploy.tensorrt.checks.windows import Windows

TENSORRT_RULES: tuple[Rule, ...] = (
    ZeroPoints(),
    ScaleValues(),
    ScaleShapes(),
    ScaleTypes(),
    OperatorSetVersion(),
    IntegerOperators(),
    StoredWeights(),
    QuantizedBias(),
    FourBitsAreWeights(),
    TransposedConvolutions(),
    AllInputsOrNone(),
    ActivationsPerTensor(),
    BeforeActivation(),
    BetweenConvAndRelu(),
    BothAddendsQuantized(),
    OneSideOfPoolOrAdd(),
    SiblingScales(),
    ConcatScales(),
    CastAfterDequantize(),
    AttentionScales(),
    LayerNormInFloat(),
    GroupedInt8(),
    DepthwiseInt8(),
    Fp8Convolutions(),
    NumberFormats(),
    Operators(),
    Types(),
    Variants(),
    Windows(),
)
