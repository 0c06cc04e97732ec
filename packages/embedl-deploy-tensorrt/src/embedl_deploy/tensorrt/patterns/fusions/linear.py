"""Fusions of matrix products, and layer norm."""

from torch import nn

from embedl_deploy.modules import ActivationLike
from embedl_deploy.patterns import Pattern, QDQPoint
from embedl_deploy.tensorrt.modules.linear import FusedLayerNorm, FusedLinear, FusedLinearReLU


class LinearReLUPattern(Pattern):
    """``Linear → activation``."""

    tree = (nn.Linear, ActivationLike)
    qdq_points = frozenset({QDQPoint.INPUT})
    graft = FusedLinearReLU


class LinearPattern(Pattern):
    """``Linear``."""

    tree = (nn.Linear,)
    qdq_points = frozenset({QDQPoint.INPUT})
    graft = FusedLinear


class LayerNormPattern(Pattern):
    """``LayerNorm``: no quantizers, see :class:`FusedLayerNorm`."""

    tree = (nn.LayerNorm,)
    qdq_points = frozenset()
    graft = FusedLayerNorm


#: The same class by the name of embedl-deploy 0.6.
LinearActPattern = LinearReLUPattern
