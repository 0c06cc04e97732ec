"""An activation in blocks by itself, and values that are hard to round."""

import torch
from torch import nn

from embedl_deploy.quantize import Precision
from embedl_deploy.quantize.grid.call_blocks import fake_quantize_call
from support.nets import random_input


class Rounds(nn.Module):
    """An activation that is rounded, by itself."""

    def __init__(self, precision: Precision) -> None:
        super().__init__()
        self.precision = precision
        self.register_buffer("scale", torch.tensor(0.01) if precision is Precision.NVFP4 else None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return fake_quantize_call(x, self.scale, self.precision.format.block, self.precision.value)


def hard_rows() -> torch.Tensor:
    """Rows with middles between numbers, zeros, values beyond all scales, and the ends of float32."""
    middles = torch.tensor([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, 6.0])
    rows = [torch.cat([middles, -middles] * 2) * size for size in (1.0, 1e-3, 448.0, 1e-30, 1e30)]
    rows += [torch.zeros(32), *random_input(6, 32)]
    rows.append(torch.cat([torch.tensor([2.0**-126, 2.0**-149, 3e38, 2.0**-120]), torch.zeros(28)]))
    rows += [torch.full((32,), 2.0**k * (1 - e)) for k in (-8, -1, 0, 3) for e in (0.0, 2.0**-24, -(2.0**-23))]
    return torch.stack(rows)
