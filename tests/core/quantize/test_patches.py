"""Convolutions of any dimension as matrix products."""

import pytest
import torch
from torch import nn

from embedl_deploy.quantize.accuracy.im2col import grouped, is_supported, samples
from support.nets import random_input


@pytest.mark.parametrize(
    "operator",
    [
        nn.Linear(4, 6),
        nn.Conv1d(4, 6, 3, stride=2, padding=2, dilation=2, groups=2),
        nn.Conv2d(4, 6, (3, 1), stride=(1, 2), padding=(1, 0)),
        nn.Conv2d(4, 6, 1, stride=2),
        nn.Conv3d(4, 6, (2, 3, 1), stride=(1, 2, 1), padding=1, dilation=(2, 1, 1), groups=2),
    ],
    ids=str,
)
def test_the_product_with_samples_is_what_the_operator_gives(operator):
    operator = operator.double()
    dims = operator.weight.dim() - 2
    x = random_input(2, *((5, 4) if dims == 0 else (4, *(7, 6, 5)[:dims]))).double()
    wanted = operator(x).detach()
    wanted = wanted.reshape(1, -1, 6).transpose(1, 2) if dims == 0 else wanted.flatten(2)
    weight = grouped(operator.weight.detach(), operator)
    got = torch.cat([(weight @ part).flatten(0, 1)[None] for part in samples(x, operator)])
    torch.testing.assert_close(got + operator.bias.detach()[:, None], wanted, rtol=1e-12, atol=1e-12)


def test_what_is_not_computed_so():
    assert not is_supported(nn.ConvTranspose1d(4, 6, 3))
    assert not is_supported(nn.Conv1d(4, 6, 3, padding=1, padding_mode="circular"))
    assert not is_supported(nn.Bilinear(2, 2, 2))
