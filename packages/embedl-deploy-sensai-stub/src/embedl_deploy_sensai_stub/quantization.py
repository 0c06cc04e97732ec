"""How models are quantized for the engine: fixed point, so scales are powers of two and one per tensor."""

from embedl_deploy.numerics import QuantConfig, TensorQuantConfig

_FIXED_POINT = TensorQuantConfig(power_of_two=True)

#: What ``quantize(result, data)`` takes for a model that was transformed for the engine.
SENSAI_QUANT_CONFIG = QuantConfig(activation=_FIXED_POINT, weight=_FIXED_POINT)
