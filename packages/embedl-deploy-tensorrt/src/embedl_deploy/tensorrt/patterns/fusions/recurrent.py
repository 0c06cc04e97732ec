"""LSTM, GRU or RNN  becomes  one module, in float, which says why."""

import torch
from torch import nn

from embedl_deploy.patterns import Applied, Example, Pattern
from embedl_deploy.tensorrt.modules.recurrent import FusedRecurrent


def _sequences() -> tuple[torch.Tensor]:
    """(N, L, 4), for examples."""
    return (torch.randn(2, 5, 4),)


class RecurrentPattern(Pattern):
    """A recurrent layer, of any number of layers and directions."""

    tree = (nn.LSTM | nn.GRU | nn.RNN,)
    graft = FusedRecurrent

    def examples(self) -> list[Example]:
        """Where it matches."""
        gru = nn.GRU(4, 3, 2, batch_first=True)
        return [
            Example(Applied(lambda lstm, x: lstm(x)[0], nn.LSTM(4, 6, bidirectional=True)), _sequences(), "LSTM"),
            Example(
                Applied(lambda gru, x: gru(x, x[:, :2, :3].transpose(0, 1).contiguous()), gru),
                _sequences(),
                "GRU of two layers, with a state",
            ),
        ]

    def near_misses(self) -> list[Example]:
        """Where it does not."""
        return [Example(Applied(lambda cell, x: cell(x[0]), nn.LSTMCell(4, 6)), _sequences(), "one step")]
