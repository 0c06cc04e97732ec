"""Convolutions with what TensorRT computes in the same kernel: batch norm, activation, residual sum, max-pooling.

Over one, two or three dimensions, transposed or not; the names say neither, because the modules do not differ.
"""

import torch
from torch import nn

from embedl_deploy.modules import (
    ActivationLike,
    BatchNorm,
    Convolution,
    FusedConv,
    center_input_of,
    is_homogeneous,
    padding_of,
    shift_outputs_of,
    shifted_activation,
)
from embedl_deploy.tensorrt.constraints import INT8_GROUP_MULTIPLE, is_int8_compatible_conv


class _TensorRTConv(FusedConv):
    """A convolution that opts out of quantization where TensorRT has no INT8 kernel for it.

    It then has no input stubs and no ``weight_fake_quant``.
    """

    def __init__(self, conv: Convolution, bn: BatchNorm | None) -> None:
        super().__init__(conv, bn)
        if not is_int8_compatible_conv(conv):
            self.input_quant_stubs = {}
            del self.weight_fake_quant
            self.why_not_quantized = (
                f"TensorRT has no INT8 kernel for {conv.groups} groups of {conv.in_channels // conv.groups} input and "
                f"{conv.out_channels // conv.groups} output channels; both must be multiples of {INT8_GROUP_MULTIPLE}"
            )

    def _scale_through(self, factors: torch.Tensor, *after: nn.Module) -> str | None:
        """Scale the convolution if what comes after it lets factors through."""
        if not is_homogeneous(*after):
            return f"{type(after[0]).__name__} does not let factors through"
        self.scale_convolution(factors)
        return None

    def input_padding(self) -> tuple[int, ...] | str:
        """That of the convolution."""
        return padding_of(self.conv)

    def center_input(self, center: float) -> None:
        """In the bias of the convolution."""
        center_input_of(self, center)

    def shift_outputs(self, shift: float) -> str | None:
        """In batch norm or convolution, and in the bounds of a ReLU; a max-pool lets a shift through."""
        activation = self._modules.get("act")
        if activation is not None:
            shifted = shifted_activation(activation, shift)
            if shifted is None:
                return f"{type(activation).__name__} has no bound to shift"
            self.act: nn.Module = shifted
        shift_outputs_of(self, shift)
        return None


class FusedConvBN(_TensorRTConv):
    """``convolution → [batch norm]``.

    Args:
        conv: The convolution.
        bn: The batch norm, if there is one.
        bn_foldable: May be given for clarity; must say whether ``bn`` is given.
    """

    inputs_to_quantize = frozenset({0})

    def __init__(self, conv: Convolution, bn: BatchNorm | None = None, *, bn_foldable: bool | None = None) -> None:
        super().__init__(conv, bn)
        if bn_foldable is not None and bn_foldable != (bn is not None):
            raise ValueError(f"bn_foldable is {bn_foldable}, but bn is {bn}; leave it out or make them agree.")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, ...) to (N, C', ...)."""
        return self.convolve(x)

    def scale_outputs(self, factors: torch.Tensor) -> str | None:
        """In batch norm or convolution."""
        return self._scale_through(factors)


class FusedConvBNReLU(_TensorRTConv):
    """``convolution → [batch norm] → activation``. Named after the commonest activation; takes any it knows."""

    inputs_to_quantize = frozenset({0})

    def __init__(self, conv: Convolution, bn: BatchNorm | None, act: ActivationLike) -> None:
        super().__init__(conv, bn)
        self.act = act

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, ...) to (N, C', ...)."""
        return self.act(self.convolve(x))  # type: ignore[no-any-return]  # as above

    def scale_outputs(self, factors: torch.Tensor) -> str | None:
        """In batch norm or convolution, through a ReLU."""
        return self._scale_through(factors, self.act)


class FusedConvBNReLUMaxPool(_TensorRTConv):
    """``Conv2d → [BatchNorm2d] → activation → MaxPool2d``: the stem of a classification network."""

    inputs_to_quantize = frozenset({0})

    def __init__(self, conv: nn.Conv2d, bn: nn.BatchNorm2d | None, act: ActivationLike, maxpool: nn.MaxPool2d) -> None:
        super().__init__(conv, bn)
        self.act = act
        self.maxpool = maxpool

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to (N, C', H', W')."""
        return self.maxpool(self.act(self.convolve(x)))  # type: ignore[no-any-return]  # as above

    def scale_outputs(self, factors: torch.Tensor) -> str | None:
        """In batch norm or convolution, through a ReLU and the pool."""
        return self._scale_through(factors, self.act, self.maxpool)


class FusedConvBNAddReLU(_TensorRTConv):
    """``convolution → [batch norm] → (+ residual) → activation``: the end of a residual block."""

    inputs_to_quantize = frozenset({0, 1})

    def __init__(self, conv: Convolution, bn: BatchNorm | None, act: ActivationLike) -> None:
        super().__init__(conv, bn)
        self.act = act

    def forward(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """(N, C, ...) and a residual that broadcasts with (N, C', ...), to (N, C', ...)."""
        y = self.convolve(x)
        return self.act(y + residual)  # type: ignore[no-any-return]  # as above


#: The same classes by the names of embedl-deploy 0.6.
FusedConvBNAct = FusedConvBNReLU
FusedConvBNActMaxPool = FusedConvBNReLUMaxPool
FusedConvBNAddAct = FusedConvBNAddReLU
