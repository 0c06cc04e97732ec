"""Where the output channels of a weight are."""

import pytest
import torch
from torch import nn

from embedl_deploy.modules.convolution import is_transposed, rows_of, scaled_rows, weight_of_rows

OPERATORS = [
    nn.Linear(4, 6),
    nn.Conv1d(4, 6, 3, groups=2),
    nn.ConvTranspose1d(4, 6, 3),
    nn.ConvTranspose2d(4, 6, (3, 2), groups=2),
    nn.ConvTranspose3d(4, 8, 2, groups=4),
]


@pytest.mark.parametrize("operator", OPERATORS, ids=str)
def test_rows_are_the_output_channels(operator):
    """What is computed with all rows but one is zero in that channel alone."""
    x = torch.ones(2, 4) if isinstance(operator, nn.Linear) else torch.ones(2, 4, *(4,) * (operator.weight.dim() - 2))
    rows = rows_of(operator.weight.detach().abs(), operator).clone()
    channels, groups = (6, 1) if isinstance(operator, nn.Linear) else (operator.out_channels, operator.groups)
    assert rows.shape[:2] == (channels, 4 // groups)
    rows[3] = 0
    with torch.no_grad():
        operator.weight.copy_(weight_of_rows(rows, operator))
        operator.bias.zero_()
        y = operator(x)
    dead = (y == 0).transpose(0, 1).flatten(1).all(1)
    assert dead.nonzero().flatten().tolist() == [3]
    assert torch.equal(rows_of(operator.weight, operator), rows)
    assert is_transposed(operator) is ("Transpose" in type(operator).__name__)


def test_a_weight_of_a_transposed_convolution_in_groups_by_hand():
    """Two groups of two inputs and three outputs: weight[i, j] is of output 3 · (i // 2) + j."""
    weight = torch.ones(4, 3, 1)
    scaled = scaled_rows(weight, torch.arange(6.0), nn.ConvTranspose1d(4, 6, 1, groups=2))
    assert scaled[..., 0].tolist() == [[0, 1, 2], [0, 1, 2], [3, 4, 5], [3, 4, 5]]
