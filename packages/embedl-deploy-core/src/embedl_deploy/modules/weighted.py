"""Fused modules around one operator with a weight: a convolution or a matrix product, and the batch norm after it.

With running statistics, batch norm is part of the weight (Ioffe and Szegedy 2015, at inference):

    w' = w · f,   b' = (b − μ) · f + β,   f = γ/√(σ²+ε)

and what hardware quantizes is w'. So a quantized weight is always w', in training mode too, where the running σ takes
the place of the batch's and the batch norm continues working on what comes out, divided by f again (Krishnamoorthi
2018, section 3.2.2; as torch's own fused modules do it).
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrize

from embedl_deploy.errors import InputError
from embedl_deploy.graph.gradient_hooks import take_gradient_hooks
from embedl_deploy.graph.lookup import has_hooks
from embedl_deploy.modules.base import FusedModule
from embedl_deploy.modules.convolution import convolve_with, scaled_rows
from embedl_deploy.modules.slots import WeightFakeQuantize
from embedl_deploy.modules.snapshot import snapshot
from embedl_deploy.validation.checked import checked

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d
Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
ModuleT = TypeVar("ModuleT", bound=nn.Module)


def batch_norm_factor(bn: BatchNorm) -> torch.Tensor:
    """γ/√(σ²+ε) by running statistics, (C,).

    Raises:
        ValueError: The batch norm keeps no running statistics.
    """
    if bn.running_var is None:
        raise ValueError(f"{bn} keeps no running statistics, so it cannot be folded; use track_running_stats=True.")
    variance = snapshot(bn.running_var) if bn.training else bn.running_var
    factor = torch.rsqrt(variance + bn.eps)
    return factor if bn.weight is None else factor * bn.weight


def batch_norm_shift(bn: BatchNorm, bias: torch.Tensor | None) -> torch.Tensor:
    """(b − μ)·γ/√(σ²+ε) + β by running statistics, (C,)."""
    assert bn.running_mean is not None  # batch_norm_factor has looked
    shift = (-bn.running_mean if bias is None else bias - bn.running_mean) * batch_norm_factor(bn)
    return shift if bn.bias is None else shift + bn.bias


class FusedConv(FusedModule):
    """A convolution (of any dimension, transposed or not) and an optional batch norm; what follows is the subclass's.

    It may also be a part of another fused module, which then has its weight, with a stub for the quantizer. A
    transposed convolution is called with the input alone: its output has the size that its settings give.

    Args:
        conv: A ``Conv1d``, ``Conv2d``, ``Conv3d``, ``ConvTranspose1d``, ``ConvTranspose2d`` or ``ConvTranspose3d``.
        bn: The batch norm after it, of as many dimensions.

    Attributes:
        conv: The convolution.
        bn: The batch norm, until it is folded.
        weight_fake_quant: Place for the quantizer of the folded weight. A subclass deletes it where the hardware
            cannot compute with a quantized weight.
    """

    inputs_to_quantize = frozenset({0})
    conv: Convolution
    bn: BatchNorm | None
    weight_fake_quant: WeightFakeQuantize

    @checked
    def __init__(self, conv: Convolution, bn: BatchNorm | None = None) -> None:
        super().__init__()
        self.conv = conv
        self.bn = bn
        self.weight_fake_quant = WeightFakeQuantize()

    @property
    def bn_foldable(self) -> bool:
        """Whether there is a batch norm that can be folded into the convolution once its statistics are fixed."""
        return self.bn is not None and self.bn.running_var is not None

    def convolve(self, x: torch.Tensor) -> torch.Tensor:
        """Convolution and batch norm of ``x``, (N, C, ...), with a quantized weight if there is a quantizer."""
        y: torch.Tensor
        stub = self._modules.get("weight_fake_quant")
        if not isinstance(stub, WeightFakeQuantize) or not stub.enabled:
            y = self.conv(x)
            return y if self.bn is None else self.bn(y)
        if self.bn is None or not self.bn_foldable:
            y = convolve_with(self.conv, x, stub(self.conv.weight), self.conv.bias)
            return y if self.bn is None else self.bn(y)
        weight = stub(self.folded_weight())
        if not self.bn.training:
            y = convolve_with(self.conv, x, weight, batch_norm_shift(self.bn, self.conv.bias))
            return y
        y = convolve_with(self.conv, x, weight, None)
        factor = batch_norm_factor(self.bn)
        dead = factor == 0  # such a channel is β whatever the convolution gives
        y = y / torch.where(dead, 1.0, factor).reshape(-1, *(1,) * (y.dim() - 2))
        if self.conv.bias is not None:
            y = y + self.conv.bias.reshape(-1, *(1,) * (y.dim() - 2))
        y = self.bn(y)
        return y

    def _forward_alone(self, *x: torch.Tensor) -> torch.Tensor:
        return self.convolve(*x)

    #: :meth:`convolve`. A subclass that computes more has its own, with as many arguments as it wants.
    forward: Callable[..., Any] = _forward_alone

    def folded_weight(self) -> torch.Tensor:
        """The weight with the batch norm's factor in it, in the shape of the weight."""
        if self.bn is None or not self.bn_foldable:
            return self.conv.weight
        return scaled_rows(self.conv.weight, batch_norm_factor(self.bn), self.conv)

    @torch.no_grad()
    def fold_batch_norm(self) -> None:
        """Make the batch norm part of weight and bias. The parameters are new ones; the old are left as they are.

        Nothing is done where the convolution or the batch norm has hooks and is called for their sake, in float: the
        folded weight would not have what they do to weight and output.
        """
        if self.bn is None or not self.bn_foldable:
            return
        stub = self._modules.get("weight_fake_quant")
        quantized = isinstance(stub, WeightFakeQuantize) and stub.enabled
        if not quantized and (has_hooks(self.conv) or has_hooks(self.bn)):
            return
        weight, bias = self.folded_weight(), batch_norm_shift(self.bn, self.conv.bias)
        self.conv = with_parameters(self.conv, weight, bias)
        self.bn = None

    @checked
    @torch.no_grad()
    def scale_convolution(self, factors: torch.Tensor) -> None:
        """Multiply the channels of convolution and batch norm, (C,), by constants, in new parameters.

        Raises:
            InputError: There are more or fewer factors.
        """
        _require_factors(factors, self.conv.out_channels)
        if self.bn is None:
            bias = None if self.conv.bias is None else self.conv.bias * factors
            self.conv = with_parameters(self.conv, scaled_rows(self.conv.weight, factors, self.conv), bias)
            return
        ones, zeros = torch.ones_like(factors), torch.zeros_like(factors)
        weight = ones if self.bn.weight is None else self.bn.weight
        bias = zeros if self.bn.bias is None else self.bn.bias
        self.bn = with_parameters(self.bn, weight * factors, bias * factors)

    def extra_repr(self) -> str:
        """Say whether batch norm can be folded."""
        return "bn foldable" if self.bn_foldable else ""


@checked
def with_parameters(module: ModuleT, weight: torch.Tensor, bias: torch.Tensor | None) -> ModuleT:
    """A module with the settings, hooks and buffers of ``module``, and a weight and bias of its own.

    They are plain parameters. Where ``module`` computes them by a parametrization
    (``torch.nn.utils.parametrizations``), the new module is of the class from before it: the property of the
    generated class would continue giving the old weight. A new bias is trained if the weight is. Hooks for
    the gradient of a tensor are those of the one before, if it has the same shape.
    """
    changed: ModuleT = module.__new__(parametrize.type_before_parametrizations(module))
    changed.__dict__.update(module.__dict__)
    changed._modules = {name: part for name, part in module._modules.items() if name != "parametrizations"}
    # A weight may have been a buffer, which is not trained: the new one takes its name.
    changed._buffers = {name: tensor for name, tensor in module._buffers.items() if name not in ("weight", "bias")}
    trains = {name: _trains(module, name) for name in ("weight", "bias")}
    known = next((flag for flag in trains.values() if flag is not None), True)
    changed._parameters = {}
    for name, tensor in (("weight", weight), ("bias", bias)):
        if tensor is None and not hasattr(module, name):
            continue  # an embedding has no bias
        flag = trains[name]
        trained = known if flag is None else flag
        before = module._parameters.get(name)
        changed._parameters[name] = new = None if tensor is None else nn.Parameter(tensor.detach(), trained)
        if new is not None and before is not None:
            take_gradient_hooks(new, before)
    return changed


def _trains(module: nn.Module, name: str) -> bool | None:
    """Whether a tensor, or what it is computed from, is trained; ``None`` if the module has no such parameter."""
    if parametrize.is_parametrized(module, name):
        parametrizations = module.get_submodule(f"parametrizations.{name}")
        return any(parameter.requires_grad for parameter in parametrizations.parameters())
    own = module._parameters.get(name)
    return None if own is None else own.requires_grad


def _require_factors(factors: torch.Tensor, channels: int) -> None:
    if factors.shape != (channels,):
        raise InputError(f"factors have the shape {list(factors.shape)}; expected one for each output, [{channels}].")


class FusedMatmul(FusedModule):
    """A ``Linear``; what follows is the subclass's. It may also be a part of another fused module.

    Attributes:
        linear: The matrix product.
        weight_fake_quant: Place for the quantizer of its weight.
    """

    inputs_to_quantize = frozenset({0})

    @checked
    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear
        self.weight_fake_quant = WeightFakeQuantize()

    def project(self, x: torch.Tensor) -> torch.Tensor:
        """The product with (..., in_features), with a quantized weight if there is a quantizer."""
        if self.weight_fake_quant.enabled:
            return F.linear(x, self.weight_fake_quant(self.linear.weight), self.linear.bias)
        return self.linear(x)  # type: ignore[no-any-return]  # modules are untyped callables

    def _forward_alone(self, *x: torch.Tensor) -> torch.Tensor:
        return self.project(*x)

    #: :meth:`project`, unless a subclass computes more.
    forward: Callable[..., Any] = _forward_alone

    @checked
    @torch.no_grad()
    def scale_product(self, factors: torch.Tensor) -> None:
        """Multiply the outputs of the product, (out_features,), by constants, in new parameters.

        Raises:
            InputError: There are more or fewer factors.
        """
        _require_factors(factors, self.linear.out_features)
        bias = None if self.linear.bias is None else self.linear.bias * factors
        self.linear = with_parameters(self.linear, scaled_rows(self.linear.weight, factors, self.linear), bias)
