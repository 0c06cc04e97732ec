"""Convolutions and products of inputs from which a constant was subtracted, and outputs with one subtracted.

With a bias b, weights w and a constant c in place of every input's zero,

    Σ w·x + b = Σ w·(x − c) + (b + c·Σ w)

for each output channel, where the sum is over the weights of that channel. It holds at the edges too, where x is padded
with zeros, if x − c is padded with −c.
"""

from typing import Any

import torch
from torch import nn

from embedl_deploy.modules.convolution import is_transposed, rows_of
from embedl_deploy.modules.device import device_of
from embedl_deploy.modules.padded_conv import PaddedConv2d
from embedl_deploy.modules.weighted import FusedConv, FusedMatmul, with_parameters
from embedl_deploy.validation.checked import checked

_Conv = nn.modules.conv._ConvNd


@checked
def padding_of(operator: nn.Module) -> tuple[int, ...] | str:
    """The zeros that a convolution or ``Linear`` adds around its input, as ``F.pad`` takes them; ``()`` for none.

    Or why it cannot be told.
    """
    if not isinstance(operator, _Conv):
        return ()
    if is_transposed(operator):
        return "a transposed convolution has other weights at its edges"
    if operator.padding_mode != "zeros":
        return f"it pads by {operator.padding_mode!r}"
    sides = operator.sides if isinstance(operator, PaddedConv2d) else operator._reversed_padding_repeated_twice
    return tuple(sides) if any(sides) else ()


@checked
@torch.no_grad()
def center_input_of(module: FusedConv | FusedMatmul, center: float) -> None:
    """:meth:`FusedModule.center_input` for a module that multiplies its input by one weight, and does no more with it.

    Args:
        module: A new operator takes the place of its own, without padding.
        center: What is subtracted from its input.
    """
    if isinstance(module, FusedConv):
        module.fold_batch_norm()
    name, operator, weight = _product(module)
    sums = weight.flatten(1).sum(1, dtype=torch.float64) * center
    bias = sums if operator.bias is None else operator.bias.double() + sums
    centered = _with_bias(operator, bias.to(weight.dtype))
    if isinstance(operator, PaddedConv2d):
        centered = PaddedConv2d.of(centered, (0, 0, 0, 0))
    elif isinstance(operator, _Conv):
        centered.padding = (0,) * len(operator.kernel_size)
        centered._reversed_padding_repeated_twice = [0, 0] * len(operator.kernel_size)
    setattr(module, name, centered)


def _product(module: FusedConv | FusedMatmul) -> tuple[str, Any, torch.Tensor]:
    """The name of a module's operator, the operator, and its weight as it is rounded."""
    name = "conv" if isinstance(module, FusedConv) else "linear"
    operator: Any = getattr(module, name)
    stub = module._modules.get("weight_fake_quant")
    return name, operator, operator.weight if stub is None else stub(operator.weight)


def _with_bias(operator: Any, bias: torch.Tensor) -> Any:
    """An operator with another bias; its weight may be kept as integers, by the stub alone."""
    if operator.weight is not None:
        return with_parameters(operator, operator.weight, bias)
    changed = operator.__new__(type(operator))
    changed.__dict__.update(operator.__dict__)
    changed._parameters = {**operator._parameters, "bias": nn.Parameter(bias, requires_grad=False)}
    return changed


@checked
@torch.no_grad()
def shift_outputs_of(module: FusedConv | FusedMatmul, shift: float) -> None:
    """Subtract a constant from what a convolution, with its batch norm, or a product gives, in a new bias."""
    if isinstance(module, FusedConv):
        module.fold_batch_norm()
    bn = module.bn if isinstance(module, FusedConv) else None
    if bn is not None:  # it has hooks, or computes its statistics from each batch
        ones = torch.ones(bn.num_features, device=device_of(module))
        shifted = (torch.zeros_like(ones) if bn.bias is None else bn.bias) - shift
        module.bn = with_parameters(bn, ones if bn.weight is None else bn.weight, shifted)
        return
    name, operator, weight = _product(module)
    bias = weight.new_zeros(rows_of(weight, operator).shape[0]) if operator.bias is None else operator.bias
    setattr(module, name, _with_bias(operator, bias - shift))


class ShiftedClip(nn.Module):
    """Limits values: what a ReLU or ReLU6 is once a constant has been subtracted before it.

    Attributes:
        low: The smallest value that is let through.
        high: The largest; ``None`` for no limit.
    """

    def __init__(self, low: float, high: float | None) -> None:
        super().__init__()
        self.low, self.high = low, high

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Any shape, to the same."""
        return x.clamp(self.low, self.high)

    def extra_repr(self) -> str:
        """The limits."""
        return f"{self.low:.4g}, {self.high if self.high is None else format(self.high, '.4g')}"


@checked
def shifted_activation(activation: nn.Module, shift: float) -> nn.Module | None:
    """G with g(x − shift) = f(x) − shift, if f is a ReLU or ReLU6; else ``None``."""
    kind = type(activation)
    if kind is nn.ReLU:
        return ShiftedClip(-shift, None)
    return ShiftedClip(-shift, 6 - shift) if kind is nn.ReLU6 else None


class CenterInput(nn.Module):
    """Subtracts a constant from a tensor, and pads it with what zeros become by that.

    Args:
        shift: What is subtracted; 0 where the operator before has done it.
        padding: As ``F.pad`` takes it.
        value: What it is padded with.
    """

    def __init__(self, shift: float, padding: tuple[int, ...], value: float) -> None:
        super().__init__()
        self.shift, self.padding, self.value = shift, padding, value

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, ...) to the same with larger sizes."""
        y = x - self.shift if self.shift else x
        return nn.functional.pad(y, self.padding, value=self.value) if self.padding else y

    def extra_repr(self) -> str:
        """The settings."""
        return f"shift={self.shift:.4g}, padding={self.padding}, value={self.value:.4g}"
