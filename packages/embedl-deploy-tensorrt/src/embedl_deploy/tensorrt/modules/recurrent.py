"""Recurrent layers, which TensorRT runs as loops of its own."""

from typing import Any

import torch
from torch import nn

from embedl_deploy.modules import FusedModule


class FusedRecurrent(FusedModule):
    """``LSTM``, ``GRU`` or ``RNN``, in float.

    TensorRT for RTX 1.7 unrolls it. With the input and its weight quantized, their product is INT8; that of each step
    with the one before is computed in float even if it is quantized, and weights that alone are quantized are
    dequantized before the loop.
    """

    inputs_to_quantize = frozenset()

    def __init__(self, recurrent: nn.LSTM | nn.GRU | nn.RNN) -> None:
        super().__init__()
        self.recurrent = recurrent
        self.why_not_quantized = (
            f"{type(recurrent).__name__}: TensorRT for RTX computes the recurrent product in float, step by step, "
            "even if it is quantized"
        )

    def forward(self, x: torch.Tensor, hx: Any = None) -> Any:
        """What the layer gives of a sequence and, if it is given, the state before: the outputs, and the last state."""
        return self.recurrent(x, hx)
