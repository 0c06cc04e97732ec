"""Activations that the runtime computes on integers: by a table, or as sums and products that are rounded on the way.

Each stands alone, with a quantizer before it, which is the one behind the convolution, and one behind it. SiLU and
Hardswish are a product whose second factor has a quantizer of its own inside, with a range that is known beforehand.
"""

import torch
import torch.nn.functional as F
from torch import nn

from embedl_deploy.modules import FusedModule, QuantStub

#: Activations for which the runtime has a table of 256 values.
Tabled = nn.Sigmoid | nn.LeakyReLU


class _Activation(FusedModule):
    """An activation alone, which may overwrite its input."""

    inputs_to_quantize = frozenset({0})
    makes_new_tensor = False

    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.act = act

    @property
    def inplace(self) -> bool:
        """Whether it overwrites its input."""
        return bool(getattr(self.act, "inplace", False))


class OrtTabledActivation(_Activation):
    """``Sigmoid`` or ``LeakyReLU``: QLinearSigmoid or QLinearLeakyRelu."""

    def __init__(self, act: Tabled) -> None:
        super().__init__(act)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Any shape, to the same."""
        return self.act(x)  # type: ignore[no-any-return]  # modules are untyped callables


class OrtSiLU(_Activation):
    """``x · σ(x)``: QLinearSigmoid and QLinearMul.

    Attributes:
        gate_quant: Place for the quantizer of σ(x), whose range [0, 1] is known beforehand.
    """

    def __init__(self, act: nn.SiLU) -> None:
        super().__init__(act)
        self.gate_quant = QuantStub(amax=1.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Any shape, to the same."""
        if not self.gate_quant.enabled:
            return self.act(x)  # type: ignore[no-any-return]  # modules are untyped callables
        gate: torch.Tensor = self.gate_quant(torch.sigmoid(x))
        return x * gate


class OrtHardswish(_Activation):
    """``x · ReLU6(x + 3) / 6``, Howard et al. 2019, section 5.2: QLinearAdd, whose range cuts off, and QLinearMul.

    Attributes:
        gate_quant: Place for the quantizer of ReLU6(x + 3), whose range [0, 6] is known beforehand.
    """

    def __init__(self, act: nn.Hardswish) -> None:
        super().__init__(act)
        self.gate_quant = QuantStub(amax=6.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Any shape, to the same."""
        if not self.gate_quant.enabled:
            return self.act(x)  # type: ignore[no-any-return]  # as above
        gate: torch.Tensor = self.gate_quant(F.relu6(x + 3))
        return x * (gate / 6)


class OrtHardsigmoid(_Activation):
    """``ReLU6(x + 3) / 6``: QLinearAdd, whose range cuts off.

    Attributes:
        gate_quant: Place for the quantizer of ReLU6(x + 3), whose range [0, 6] is known beforehand.
    """

    def __init__(self, act: nn.Hardsigmoid) -> None:
        super().__init__(act)
        self.gate_quant = QuantStub(amax=6.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Any shape, to the same."""
        if not self.gate_quant.enabled:
            return self.act(x)  # type: ignore[no-any-return]  # as above
        gate: torch.Tensor = self.gate_quant(F.relu6(x + 3))
        return gate / 6
