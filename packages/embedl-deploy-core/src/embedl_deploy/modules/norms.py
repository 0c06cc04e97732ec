"""Norms that ``torch.nn`` has no setting for: in several types, or over channels."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from embedl_deploy.errors import InputError
from embedl_deploy.modules.base import ConvertedModule
from embedl_deploy.validation.checked import checked

#: Whose type a normalized tensor is rounded to before it is weighted.
RoundsTo = Literal["input", "weight"]


class _Written(nn.Module):
    """What both norms do with types."""

    upcast: torch.dtype | None
    rounds_to: RoundsTo | None

    def _tensors(self) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        return getattr(self, "weight", None), getattr(self, "bias", None)

    def _is_of_one_type(self, x: torch.Tensor) -> bool:
        """Whether ``torch.nn`` computes this in one piece."""
        return self.upcast is None and all(each is None or each.dtype == x.dtype for each in self._tensors())

    def _wide(self, x: torch.Tensor) -> torch.Tensor:
        return x if self.upcast is None else x.to(self.upcast)

    def _weighted(self, normalized: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        weight, bias = self._tensors()
        if self.rounds_to is not None:
            normalized = normalized.to(weight.dtype if self.rounds_to == "weight" and weight is not None else x.dtype)
        if weight is not None:
            normalized = normalized * weight
        return normalized if bias is None else normalized + bias

    def extra_repr(self) -> str:
        """The settings."""
        types = "" if self.upcast is None else f", upcast={self.upcast}, rounds_to={self.rounds_to!r}"
        return super().extra_repr() + types


class WrittenRMSNorm(_Written, ConvertedModule, nn.RMSNorm):
    """x/√(mean(x²) + ε)·w (Zhang and Sennrich 2019, equation 4) in the types in which it was written out.

    Language models normalize in float32, and are weighted in float16. Without a weight to begin with.

    Args:
        normalized_shape: The sizes of the last axes, over which the mean is taken.
        eps: ε.
        upcast: The type that the input is converted to first; ``None`` for its own. torch computes in float32 or wider.
        rounds_to: Whether the normalized tensor is converted to the type of the input, or of the weight, before it is
            weighted; ``None`` if it is not.
    """

    @checked
    def __init__(
        self,
        normalized_shape: tuple[int, ...],
        eps: float,
        *,
        upcast: torch.dtype | None = None,
        rounds_to: RoundsTo | None = None,
    ) -> None:
        super().__init__(normalized_shape, eps, elementwise_affine=False)
        self.upcast = upcast
        self.rounds_to = rounds_to

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., *normalized_shape) to the same."""
        if self._is_of_one_type(x):
            return F.rms_norm(x, self.normalized_shape, self.weight, self.eps)
        return self._weighted(F.rms_norm(self._wide(x), self.normalized_shape, None, self.eps), x)


class WrittenLayerNorm(_Written, ConvertedModule, nn.LayerNorm):
    """A ``LayerNorm`` in the types in which it was written out; arguments as for :class:`WrittenRMSNorm`."""

    @checked
    def __init__(
        self,
        normalized_shape: tuple[int, ...],
        eps: float,
        *,
        upcast: torch.dtype | None = None,
        rounds_to: RoundsTo | None = None,
    ) -> None:
        super().__init__(normalized_shape, eps, elementwise_affine=False)
        self.upcast = upcast
        self.rounds_to = rounds_to

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., *normalized_shape) to the same."""
        if self._is_of_one_type(x):
            return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        return self._weighted(F.layer_norm(self._wide(x), self.normalized_shape, None, None, self.eps), x)


class _OverChannels(ConvertedModule):
    """What norms over channels have in common."""

    weight: torch.Tensor | None
    bias: torch.Tensor | None

    def __init__(self, num_channels: int, eps: float, *, has_weight: bool, has_bias: bool) -> None:
        super().__init__()
        if num_channels < 1:
            raise InputError(f"{type(self).__name__}: num_channels is {num_channels}; expected 1 or more.")
        self.num_channels = num_channels
        self.eps = eps
        self.register_parameter("weight", nn.Parameter(torch.ones(num_channels)) if has_weight else None)
        self.register_parameter("bias", nn.Parameter(torch.zeros(num_channels)) if has_bias else None)

    def _normalized(self, x: torch.Tensor, *, centred: bool) -> torch.Tensor:
        wide = x.float() if torch.finfo(x.dtype).bits < 32 else x
        if centred:
            wide = wide - wide.mean(1, keepdim=True)
        y = wide * torch.rsqrt(wide.square().mean(1, keepdim=True) + self.eps)
        shape = (-1, *(1,) * (x.dim() - 2))
        if self.weight is not None:
            y = y * self.weight.reshape(shape)
        if self.bias is not None:
            y = y + self.bias.reshape(shape)
        return y.to(x.dtype)

    def extra_repr(self) -> str:
        """The settings."""
        return f"{self.num_channels}, eps={self.eps}"


class LayerNorm2d(_OverChannels):
    """Layer normalization of each position of an image over its channels, as ConvNeXt and SAM have it.

    It is computed where the channels are, in float32 or wider and in elementary steps. A ``LayerNorm`` between two
    permutations gives the same; hardware compilers merge the steps with their neighbours and not the permutations.

    Args:
        num_channels: C.
        eps: Added to the variance.
        elementwise_affine: Whether it has a weight, (C,), one to begin with.
        bias: Whether it has a bias, (C,), zero to begin with, beside the weight.

    Raises:
        InputError: There is less than one channel.
    """

    @checked
    def __init__(
        self, num_channels: int, eps: float = 1e-6, *, elementwise_affine: bool = True, bias: bool = True
    ) -> None:
        super().__init__(num_channels, eps, has_weight=elementwise_affine, has_bias=elementwise_affine and bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W), or with any number of axes after the channels, to the same."""
        return self._normalized(x, centred=True)


class RMSNorm2d(_OverChannels):
    """A :class:`LayerNorm2d` that takes no mean off and has no bias, as MobileNetV5 has it.

    Args:
        num_channels: C.
        eps: Added to the mean square.
        elementwise_affine: Whether it has a weight, (C,), one to begin with.

    Raises:
        InputError: There is less than one channel.
    """

    @checked
    def __init__(self, num_channels: int, eps: float = 1e-6, *, elementwise_affine: bool = True) -> None:
        super().__init__(num_channels, eps, has_weight=elementwise_affine, has_bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W), or with any number of axes after the channels, to the same."""
        return self._normalized(x, centred=False)
