"""Every module that this backend puts into a graph: one per kernel of the engine."""

from embedl_deploy_sensai_stub.modules.add import SensaiAdd
from embedl_deploy_sensai_stub.modules.conv import SensaiConvBN, SensaiConvBNReLU
from embedl_deploy_sensai_stub.modules.linear import SensaiLinear
from embedl_deploy_sensai_stub.modules.pool import SensaiGlobalAveragePool, SensaiMaxPool

__all__ = [
    "SensaiAdd",
    "SensaiConvBN",
    "SensaiConvBNReLU",
    "SensaiGlobalAveragePool",
    "SensaiLinear",
    "SensaiMaxPool",
]
