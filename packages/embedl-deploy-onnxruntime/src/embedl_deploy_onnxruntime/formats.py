"""The number formats in which ONNX Runtime is fast on a processor, as configurations.

On x86 its fastest kernels multiply unsigned activations by signed weights (``VPDPBUSD`` of VNNI), so activations are
UINT8 with a zero point. A range that starts at 0 makes ReLU part of the rounding, on any processor.
"""

from embedl_deploy.numerics import Precision, QuantConfig, TensorQuantConfig

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
