"""A convolution with its own padding on each of the four sides."""

import torch
import torch.nn.functional as F
from torch import nn

from embedl_deploy.modules.base import ConvertedModule
from embedl_deploy.validation.checked import checked


class PaddedConv2d(ConvertedModule, nn.Conv2d):
    """A ``Conv2d`` after zero-padding that differs from side to side, as ``SAME`` padding with a stride gives it.

    ``nn.Conv2d`` pads both ends of a dimension alike; hardware and ONNX do not ask for that. The weight and bias are
    the original convolution's own parameters.

    Attributes:
        sides: Zeros added at (left, right, top, bottom), in pixels.
    """

    sides: tuple[int, int, int, int]

    @staticmethod
    @checked
    def of(conv: nn.Conv2d, sides: tuple[int, int, int, int]) -> nn.Conv2d:
        """``conv`` with its zero-padding replaced by ``sides``; a plain ``Conv2d`` where one can say it.

        Args:
            conv: The convolution whose parameters and other settings are taken over.
            sides: Zeros to add at (left, right, top, bottom), in pixels.
        """
        left, right, top, bottom = sides
        plain = left == right and top == bottom
        padded = (nn.Conv2d if plain else PaddedConv2d)(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,  # type: ignore[arg-type]  # stored as a tuple of two
            stride=tuple(conv.stride),  # type: ignore[arg-type]
            padding=(top, left) if plain else 0,
            dilation=tuple(conv.dilation),  # type: ignore[arg-type]
            groups=conv.groups,
            bias=False,
            device="meta",  # no memory, no random numbers: the tensors are replaced in the next lines
        )
        padded._parameters = dict(conv._parameters)
        padded._buffers = dict(conv._buffers)
        if isinstance(padded, PaddedConv2d):
            padded.sides = sides
        return padded

    def _conv_forward(self, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        padded = F.pad(input, self.sides)
        return F.conv2d(padded, weight, bias, self.stride, 0, self.dilation, self.groups)

    def extra_repr(self) -> str:
        """The settings of the convolution and the four paddings."""
        settings: str = super().extra_repr()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return f"{settings}, sides={self.sides}"
