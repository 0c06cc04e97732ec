"""Every module that this backend puts into a graph: one per kernel of the engine."""

from embedl_deploy_sensai_stub.modules.conv import SensaiConvBN, SensaiConvBNReLU
from embedl_deploy_sensai_stub.modules.linear import SensaiLinear
from embedl_deploy_sensai_stub.modules.pool import SensaiMaxPool

__all__ = ["SensaiConvBN", "SensaiConvBNReLU", "SensaiLinear", "SensaiMaxPool"]
