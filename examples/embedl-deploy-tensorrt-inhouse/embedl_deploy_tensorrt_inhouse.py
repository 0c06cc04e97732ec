"""An extension of the TensorRT backend: a fusion of the house, and one more objection to quantizers.

It owns no backend: its entry point is named ``tensorrt.inhouse``, and it implements the same hooks.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from embedl_deploy.backend import QuantPoint, QuantPolicy, hookimpl
from embedl_deploy.modules import FusedMatmul
from embedl_deploy.patterns import Example, Pattern, QDQPoint


class InhouseLinearTanh(FusedMatmul):
    """``Linear → Tanh``, for which the house has a TensorRT plugin."""

    def __init__(self, linear: nn.Linear, tanh: nn.Tanh) -> None:
        super().__init__(linear)
        self.tanh = tanh

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in_features) to (..., out_features), between −1 and 1."""
        y: torch.Tensor = self.tanh(self.project(x))
        return y


class LinearTanhPattern(Pattern):
    """``Linear → Tanh``; without this pattern TensorRT's own takes the ``Linear`` alone."""

    tree = (nn.Linear, nn.Tanh)
    qdq_points = frozenset({QDQPoint.INPUT})
    graft = InhouseLinearTanh

    def examples(self) -> Sequence[Example]:
        """A pooler, as in BERT."""
        return [Example(nn.Sequential(nn.Linear(4, 4), nn.Tanh()), (torch.randn(2, 4),), "a pooler")]

    def near_misses(self) -> Sequence[Example]:
        """Another activation."""
        return [Example(nn.Sequential(nn.Linear(4, 4), nn.Sigmoid()), (torch.randn(2, 4),), "it is a sigmoid")]


def poolers_in_float(point: QuantPoint) -> str | None:
    """The fusion above stays in float; the rest is for TensorRT's policy of the same name to say."""
    if isinstance(point.module, InhouseLinearTanh):
        return "the kernel for Linear → Tanh has no INT8 version"
    return None


@hookimpl(tryfirst=True)
def embedl_deploy_fusions() -> Sequence[Pattern]:
    """Tried before every other fusion, those of other extensions too."""
    return [LinearTanhPattern()]


@hookimpl
def embedl_deploy_quantization_policies() -> Mapping[str, QuantPolicy]:
    """Beside TensorRT's policy of that name: either may object."""
    return {"mixed": poolers_in_float}
