"""Number formats, configurations, quantization points and policies, shared by backends and quantizers."""

from embedl_deploy.numerics.config import LayerQuantConfig, LeftOpen, ModulesToSkip, QuantConfig
from embedl_deploy.numerics.formats import NumberFormat, Precision
from embedl_deploy.numerics.points import PointKind, QuantPoint, QuantPolicy
from embedl_deploy.numerics.selectors import Selector
from embedl_deploy.numerics.tensor_config import CalibrationMethod, TensorQuantConfig

__all__ = [
    "CalibrationMethod",
    "LayerQuantConfig",
    "LeftOpen",
    "ModulesToSkip",
    "NumberFormat",
    "PointKind",
    "Precision",
    "QuantConfig",
    "QuantPoint",
    "QuantPolicy",
    "Selector",
    "TensorQuantConfig",
]
