"""What kernels of ONNX Runtime do, by the name of their operator."""

from embedl_deploy.engine import LayerKind

_NAMES = {
    LayerKind.CONVOLUTION: (
        "Conv ConvTranspose ConvInteger FusedConv NhwcConv NhwcFusedConv QLinearConv ConvTransposeWithDynamicPads"
    ),
    LayerKind.GEMM: (
        "Gemm MatMul FusedGemm FusedMatMul FusedMatMulActivation TransposeMatMul QGemm QLinearMatMul MatMulInteger "
        "MatMulInteger16 MatMulIntegerToFloat DynamicQuantizeMatMul MatMulNBits MatMulBnb4 GemmFastGelu"
    ),
    LayerKind.ATTENTION: (
        "Attention QAttention MultiHeadAttention GroupQueryAttention DecoderAttention PackedAttention "
        "DecoderMaskedMultiHeadAttention DecoderMaskedSelfAttention SparseAttention PagedAttention"
    ),
    LayerKind.NORMALIZATION: (
        "LayerNormalization SimplifiedLayerNormalization SkipLayerNormalization SkipSimplifiedLayerNormalization "
        "RMSNormalization BatchNormalization InstanceNormalization GroupNormalization GroupNorm SkipGroupNorm "
        "EmbedLayerNormalization LpNormalization LRN Softmax LogSoftmax QLinearSoftmax BiasSoftmax Hardmax"
    ),
    LayerKind.POOLING: (
        "MaxPool AveragePool GlobalAveragePool GlobalMaxPool LpPool GlobalLpPool NhwcMaxPool QLinearAveragePool "
        "QLinearGlobalAveragePool ReduceMean ReduceSum ReduceMax ReduceMin QLinearReduceMean"
    ),
    LayerKind.POINTWISE: (
        "Add Sub Mul Div Pow Neg Abs Sqrt Exp Log Erf Reciprocal Floor Ceil Round Sign Sin Cos Mod Max Min Sum Mean "
        "Relu LeakyRelu PRelu ThresholdedRelu Elu Selu Celu Clip Sigmoid HardSigmoid HardSwish Swish Mish Tanh "
        "Softplus Softsign Gelu FastGelu QuickGelu BiasGelu BiasAdd Not And Or Xor Equal Less LessOrEqual Greater "
        "GreaterOrEqual Where IsNaN IsInf QLinearAdd QLinearMul QLinearSigmoid QLinearLeakyRelu QLinearWhere "
        "QuantizeLinear DequantizeLinear DynamicQuantizeLinear BitShift"
    ),
    LayerKind.REFORMAT: (
        "ReorderInput ReorderOutput Transpose Reshape Flatten Squeeze Unsqueeze Cast Identity DepthToSpace SpaceToDepth"
    ),
}
_KINDS = {name: kind for kind, names in _NAMES.items() for name in names.split()}
#: Products of integers whose first input is in float, because they quantize it by themselves.
COMPUTED_IN = {"DynamicQuantizeMatMul": "uint8"}
#: Kernels that only move values, some of which the runtime has added.
MOVES = frozenset({"ReorderInput", "ReorderOutput", "Transpose"})


def kind_of(operator: str) -> LayerKind:
    """What a kernel does; :attr:`LayerKind.OTHER` for operators that have no row here."""
    return _KINDS.get(operator, LayerKind.OTHER)
