"""Norms, which are never quantized because rounding their input would disturb the statistics.

They are fused modules so that smoothing can move scales between them and the matrix products that follow, and so that
reports know them.
"""

from typing import TypeVar

import torch
from torch import nn

from embedl_deploy.modules.base import FusedModule
from embedl_deploy.modules.norms import LayerNorm2d, RMSNorm2d
from embedl_deploy.modules.weighted import with_parameters
from embedl_deploy.validation.checked import checked

NormT = TypeVar("NormT", bound=nn.LayerNorm | nn.RMSNorm | LayerNorm2d | RMSNorm2d)


@checked
def scaled_norm(norm: NormT, factors: torch.Tensor, over: tuple[int, ...]) -> NormT | str:
    """A norm whose output is multiplied by ``factors``, or why there is none."""
    if over != tuple(factors.shape):
        return f"it normalizes over {over}, not over {factors.numel()} channels"
    weight, bias = norm.weight, getattr(norm, "bias", None)
    if weight is None:
        return "it has no weight and bias to scale"
    return with_parameters(norm, weight * factors, None if bias is None else bias * factors)


class FusedLayerNorm(FusedModule):
    """``LayerNorm``."""

    inputs_to_quantize = frozenset()

    @checked
    def __init__(self, layer_norm: nn.LayerNorm) -> None:
        super().__init__()
        self.layer_norm = layer_norm

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., *normalized_shape) to the same."""
        return self.layer_norm(x)  # type: ignore[no-any-return]  # modules are untyped callables

    @torch.no_grad()
    def scale_outputs(self, factors: torch.Tensor) -> str | None:
        """In weight and bias."""
        scaled = scaled_norm(self.layer_norm, factors, self.layer_norm.normalized_shape)
        if isinstance(scaled, str):
            return scaled
        self.layer_norm = scaled
        return None


class FusedRMSNorm(FusedModule):
    """``RMSNorm``."""

    inputs_to_quantize = frozenset()

    @checked
    def __init__(self, rms_norm: nn.RMSNorm) -> None:
        super().__init__()
        self.rms_norm = rms_norm

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., *normalized_shape) to the same."""
        return self.rms_norm(x)  # type: ignore[no-any-return]  # as above

    @torch.no_grad()
    def scale_outputs(self, factors: torch.Tensor) -> str | None:
        """In the weight."""
        scaled = scaled_norm(self.rms_norm, factors, self.rms_norm.normalized_shape)
        if isinstance(scaled, str):
            return scaled
        self.rms_norm = scaled
        return None


class FusedLayerNorm2d(FusedModule):
    """``LayerNorm2d`` or ``RMSNorm2d``, in steps that compilers merge with their neighbours."""

    inputs_to_quantize = frozenset()

    @checked
    def __init__(self, layer_norm: LayerNorm2d | RMSNorm2d) -> None:
        super().__init__()
        self.layer_norm = layer_norm

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to the same."""
        return self.layer_norm(x)  # type: ignore[no-any-return]  # as above

    @torch.no_grad()
    def scale_outputs(self, factors: torch.Tensor) -> str | None:
        """In weight and bias."""
        scaled = scaled_norm(self.layer_norm, factors, (self.layer_norm.num_channels,))
        if isinstance(scaled, str):
            return scaled
        self.layer_norm = scaled
        return None


#: All of them.
NORMS: tuple[type[FusedModule], ...] = (FusedLayerNorm, FusedRMSNorm, FusedLayerNorm2d)
