"""What layers give, told without calling them: as what they give when they are called."""

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode

from embedl_deploy.graph.leaf_results import result_of_leaf
from support.nets import random_input

SEQUENCE, IMAGE = random_input(2, 5, 8), random_input(2, 4, 6, 6)


def told(module, x):
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        return result_of_leaf(module, (mode.from_tensor(x),), {})


@pytest.mark.parametrize(
    ("module", "x"),
    [
        (nn.Linear(8, 3), SEQUENCE),
        (nn.Linear(8, 3), SEQUENCE.transpose(0, 1)),
        (nn.Linear(6, 3), IMAGE),
        (nn.LayerNorm(8), SEQUENCE),
        (nn.LayerNorm((5, 8)), SEQUENCE),
        (nn.LayerNorm(8), SEQUENCE.transpose(0, 1)),
        (nn.Dropout(), SEQUENCE),
        (nn.GELU(), SEQUENCE.transpose(1, 2)),
        (nn.ReLU(), IMAGE.to(memory_format=torch.channels_last)),
        (nn.BatchNorm2d(4), IMAGE),
        (nn.Linear(8, 3).half(), SEQUENCE.half()),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_as_when_it_is_called(module, x):
    found, expected = told(module.eval(), x), module(x)
    assert (found.shape, found.dtype, found.device) == (expected.shape, expected.dtype, expected.device)
    assert found.stride() == expected.stride()


class _Own(nn.Linear):
    """A class of its own."""


def _hooked():
    module = nn.Linear(8, 3)
    module.register_forward_hook(lambda module, args, output: output[:1])
    return module


@pytest.mark.parametrize(
    ("module", "x"),
    [
        (_Own(8, 3), SEQUENCE),
        (_hooked(), SEQUENCE),
        (nn.Linear(7, 3), SEQUENCE),
        (nn.Linear(8, 3).double(), SEQUENCE),
        (nn.LayerNorm(7), SEQUENCE),
        (nn.ReLU(inplace=True), SEQUENCE),
        (nn.GELU(), SEQUENCE.long()),
        (nn.BatchNorm2d(4).train(), IMAGE),
        (nn.BatchNorm2d(3), IMAGE),
        (nn.Dropout().train(), SEQUENCE),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_it_is_called_where_there_is_doubt(module, x):
    assert told(module if module.training else module.eval(), x) is None


ENCODERS = {
    "layer": nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
    "layer, norm first": nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True),
    "layers and a norm": nn.TransformerEncoder(
        nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2, nn.LayerNorm(8)
    ),
}


@pytest.mark.parametrize("module", ENCODERS.values(), ids=ENCODERS)
def test_an_encoder_that_looks_at_its_padding(module):
    padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    expected = module.eval()(SEQUENCE, src_key_padding_mask=padding)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        x, mask = mode.from_tensor(SEQUENCE), mode.from_tensor(padding)
        found = result_of_leaf(module, (x,), {"src_key_padding_mask": mask})
        assert result_of_leaf(module, (x, None, mask), {}).shape == found.shape
        assert result_of_leaf(module, (x[..., :6],), {"src_key_padding_mask": mask}) is None
        assert result_of_leaf(module, (x,), {}) is None
    assert (found.shape, found.dtype, found.stride()) == (expected.shape, expected.dtype, expected.stride())
