"""The number formats in which ONNX Runtime is fast on a processor, as configurations.

On x86 its fastest kernels multiply unsigned activations by signed weights (``VPDPBUSD`` of VNNI), so activations are
UINT8 with a zero point. A range that starts at 0 makes ReLU part of the rounding, on any processor.
"""

from embedl_deploy.modules import FusedEmbedding
from embedl_deploy.numerics import LayerQuantConfig, Precision, QuantConfig, TensorQuantConfig

_WEIGHT = TensorQuantConfig(per_channel=True)

#: UINT8 activations with a zero point, INT8 weights with a scale per channel: for x86 with VNNI, and for Arm.
U8S8 = QuantConfig(activation=TensorQuantConfig(Precision.UINT8, symmetric=False), weight=_WEIGHT)

#: INT8 activations without a zero point.
S8S8 = QuantConfig(activation=TensorQuantConfig(), weight=_WEIGHT)

#: As :data:`U8S8`, with weights of 7 bits: for x86 without VNNI, whose INT8 products saturate in 16 bits.
U8S7 = QuantConfig(
    activation=TensorQuantConfig(Precision.UINT8, symmetric=False),
    weight=TensorQuantConfig(Precision.INT7, per_channel=True),
)

#: Products with a weight in INT8, their inputs in UINT8 with the range of each call: nothing is calibrated. For
#: transformers, whose activations have outliers that a fixed range would have to hold.
DYNAMIC = QuantConfig(
    activation=TensorQuantConfig(Precision.UINT8, symmetric=False, dynamic=True), weight=_WEIGHT, policy="dynamic"
)

#: Weights of products and tables of embeddings in INT8, with a scale for each output and row, activations in float: for
#: networks bound by reading their weights, as language models are where they write one token at a time.
WEIGHTS_8BIT = QuantConfig(activation=None, weight=_WEIGHT, policy="dynamic")

#: Weights of products in INT4, 32 inputs of an output with one scale, tables of embeddings in INT8, since the runtime
#: gathers rows of no fewer bits, activations in float.
WEIGHTS_4BIT = QuantConfig(
    activation=None,
    weight=TensorQuantConfig(Precision.INT4, block_size=32),
    policy="dynamic",
    overrides={FusedEmbedding: LayerQuantConfig(None, _WEIGHT)},
)
