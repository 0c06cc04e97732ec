"""The network that most tests of the pipeline transform."""

import pytest
import torch

from support.residual_net import ResidualNet


@pytest.fixture
def net():
    torch.manual_seed(0)
    return ResidualNet().eval()
