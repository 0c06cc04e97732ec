"""What the tests of the guides share: the models and inputs that a block takes over from an earlier one.

``tests/guides`` runs every code block of the guides that the project is made from, as written. Two things differ:
imports of ``_internal`` are the public ones, and ``weights="DEFAULT"`` is ``weights=None``, because nothing can be
downloaded. Code stands between ``# ---`` lines; what a block takes over from an earlier one comes in through fixtures
of the same names, and what the text around a block claims is asserted after it.
"""

import pytest
import torch
from torch import nn


@pytest.fixture(scope="session")
def model() -> nn.Module:
    from torchvision.models import resnet50

    torch.manual_seed(0)
    return resnet50(weights=None).eval()


@pytest.fixture
def example_input() -> torch.Tensor:
    return torch.randn(1, 3, 224, 224)


@pytest.fixture(scope="session")
def convnext() -> nn.Module:
    import torchvision

    torch.manual_seed(0)
    return torchvision.models.convnext_tiny(weights=None).eval()


@pytest.fixture(scope="session")
def vit() -> nn.Module:
    """A vision transformer of two blocks, for images of 32×32."""
    from torchvision.models.vision_transformer import VisionTransformer

    torch.manual_seed(0)
    vit = VisionTransformer(32, 16, 2, 2, 16, 32, num_classes=10).eval()
    nn.init.normal_(vit.heads.head.weight)  # zero otherwise, and so would be all outputs
    return vit
