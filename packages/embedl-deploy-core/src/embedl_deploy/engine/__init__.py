"""Reports about engines: the layers, the bytes they move, and the differences between two engines."""

from embedl_deploy.engine.comparison import EngineComparison, compare
from embedl_deploy.engine.differences import ModuleDifference
from embedl_deploy.engine.figures import FloatLayer
from embedl_deploy.engine.layers import BITS, EngineLayer, EngineTensor, LayerKind
from embedl_deploy.engine.report import EngineReport
from embedl_deploy.engine.roofline import Device, Estimate, LayerEstimate, estimate
from embedl_deploy.engine.timing import Timing

__all__ = [
    "BITS",
    "Device",
    "EngineComparison",
    "EngineLayer",
    "EngineReport",
    "EngineTensor",
    "Estimate",
    "FloatLayer",
    "LayerEstimate",
    "LayerKind",
    "ModuleDifference",
    "Timing",
    "compare",
    "estimate",
]
