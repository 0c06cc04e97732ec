"""Element-wise operators that share a kernel."""

import torch

from embedl_deploy.modules import ActivationLike, FusedModule


class FusedActAdd(FusedModule):
    """``activation(x) + residual``.

    An activation whose result is added to something belongs to the sum, not to the kernel before it.
    """

    inputs_to_quantize = frozenset({0, 1})

    def __init__(self, act: ActivationLike) -> None:
        super().__init__()
        self.act = act

    @property
    def inplace(self) -> bool:
        """Whether the activation overwrites ``x``."""
        return bool(getattr(self.act, "inplace", False))

    def forward(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """Two tensors that broadcast, to their common shape."""
        return self.act(x) + residual  # type: ignore[no-any-return]  # modules are untyped callables
