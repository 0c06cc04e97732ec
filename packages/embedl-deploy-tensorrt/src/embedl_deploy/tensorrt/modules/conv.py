"""Convolutions with what TensorRT computes in the same kernel: batch norm, activation, residual sum, max-pooling.

The original modules are kept and called in order. Nothing is folded here: with running statistics TensorRT folds
batch norm when it builds the engine,

    w' = w · γ/√(σ²+ε),   b' = (b − μ) · γ/√(σ²+ε) + β

(Ioffe and Szegedy 2015, at inference), and in training mode there is nothing to fold.
"""

import torch
from torch import nn

from embedl_deploy.modules import ActivationLike, FusedModule, WeightFakeQuantize
from embedl_deploy.tensorrt.constraints import is_int8_compatible_conv


class _FusedConv(FusedModule):
    """A convolution and an optional batch norm; what follows is the subclass's.

    A grouped convolution that TensorRT has no INT8 kernel for opts out of quantization: it has no input stubs and no
    ``weight_fake_quant``.
    """

    conv: nn.Conv2d
    bn: nn.BatchNorm2d | None
    weight_fake_quant: WeightFakeQuantize

    def __init__(self, conv: nn.Conv2d, bn: nn.BatchNorm2d | None) -> None:
        super().__init__()
        self.conv = conv
        self.bn = bn
        if is_int8_compatible_conv(conv):
            self.weight_fake_quant = WeightFakeQuantize()
        else:
            self.input_quant_stubs = {}

    @property
    def bn_foldable(self) -> bool:
        """Whether there is a batch norm that can be folded into the convolution once its statistics are fixed."""
        return self.bn is not None

    def convolve(self, x: torch.Tensor) -> torch.Tensor:
        """Convolution and batch norm of ``x``, (N, C, H, W), with quantized input and weight where stubs say so."""
        x = self.quantize_input(0, x)
        stub = self._modules.get("weight_fake_quant")
        if isinstance(stub, WeightFakeQuantize) and stub.enabled:
            x = self.conv._conv_forward(x, stub(self.conv.weight), self.conv.bias)
        else:
            x = self.conv(x)
        return x if self.bn is None else self.bn(x)

    def extra_repr(self) -> str:
        """Say whether batch norm can be folded."""
        return "bn foldable" if self.bn_foldable else ""


class FusedConvBN(_FusedConv):
    """``Conv2d → [BatchNorm2d]``.

    Args:
        conv: The convolution.
        bn: The batch norm, if there is one.
        bn_foldable: May be given for clarity; must say whether ``bn`` is given.
    """

    inputs_to_quantize = frozenset({0})

    def __init__(self, conv: nn.Conv2d, bn: nn.BatchNorm2d | None = None, *, bn_foldable: bool | None = None) -> None:
        super().__init__(conv, bn)
        if bn_foldable is not None and bn_foldable != (bn is not None):
            raise ValueError(f"bn_foldable is {bn_foldable}, but bn is {bn}; leave it out or make them agree.")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to (N, C', H', W')."""
        return self.convolve(x)


class FusedConvBNReLU(_FusedConv):
    """``Conv2d → [BatchNorm2d] → activation``. Named after the commonest activation; takes any it knows."""

    inputs_to_quantize = frozenset({0})

    def __init__(self, conv: nn.Conv2d, bn: nn.BatchNorm2d | None, act: ActivationLike) -> None:
        super().__init__(conv, bn)
        self.act = act

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to (N, C', H', W')."""
        return self.act(self.convolve(x))  # type: ignore[no-any-return]  # as above


class FusedConvBNReLUMaxPool(_FusedConv):
    """``Conv2d → [BatchNorm2d] → activation → MaxPool2d``: the stem of a classification network."""

    inputs_to_quantize = frozenset({0})

    def __init__(self, conv: nn.Conv2d, bn: nn.BatchNorm2d | None, act: ActivationLike, maxpool: nn.MaxPool2d) -> None:
        super().__init__(conv, bn)
        self.act = act
        self.maxpool = maxpool

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to (N, C', H', W')."""
        return self.maxpool(self.act(self.convolve(x)))  # type: ignore[no-any-return]  # as above


class FusedConvBNAddReLU(_FusedConv):
    """``Conv2d → BatchNorm2d → (+ residual) → activation``: the end of a residual block."""

    inputs_to_quantize = frozenset({0, 1})

    def __init__(self, conv: nn.Conv2d, bn: nn.BatchNorm2d | None, act: ActivationLike) -> None:
        super().__init__(conv, bn)
        self.act = act

    def forward(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) and a residual that broadcasts with (N, C', H', W'), to (N, C', H', W')."""
        y = self.convolve(x)
        return self.act(y + self.quantize_input(1, residual))  # type: ignore[no-any-return]  # as above


#: The same classes by the names of embedl-deploy 0.6.
FusedConvBNAct = FusedConvBNReLU
FusedConvBNActMaxPool = FusedConvBNReLUMaxPool
FusedConvBNAddAct = FusedConvBNAddReLU
