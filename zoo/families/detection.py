"""What torchvision has beside classifiers: segmentation, detectors up to their heads, video, optical flow."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from torchvision_import import import_torchvision
from zoo.member import Made, Member


def _member(name: str, *shape: int, around: Callable[[nn.Module], nn.Module] | None = None, **settings: Any) -> Member:
    """A model of torchvision that takes one tensor, or the part of it that ``around`` gives."""

    def make() -> Made:
        models = import_torchvision().models
        model = models.get_model(name, weights=None, weights_backbone=None, **settings)
        return Made((model if around is None else around(model)).eval(), (torch.randn(*shape),))

    return Member(name, make)


def _video(name: str, *shape: int, **settings: Any) -> Member:
    def make() -> Made:
        model = import_torchvision().models.get_model(name, weights=None, **settings)
        return Made(model.eval(), (torch.randn(*shape),))

    return Member(name, make)


def _flow(name: str) -> Member:
    def make() -> Made:
        model = import_torchvision().models.get_model(name, weights=None)
        return Made(model.eval(), (torch.randn(1, 3, 128, 128), torch.randn(1, 3, 128, 128)), {"num_flow_updates": 2})

    return Member(name, make)


class _UpToTheHeads(nn.Module):
    """Backbone and dense heads of a detector: what a compiler gets, without the choice of boxes."""

    def __init__(self, detector: Any) -> None:
        super().__init__()
        self.backbone = detector.backbone
        self.head = detector.rpn.head if hasattr(detector, "rpn") else detector.head

    def forward(self, x: torch.Tensor) -> Any:
        features = list(self.backbone(x).values())
        return self.head(features)


_IMAGE = (1, 3, 128, 128)
_CLIP = (1, 3, 8, 112, 112)

MEMBERS = [
    _member("deeplabv3_mobilenet_v3_large", *_IMAGE),
    _member("deeplabv3_resnet50", *_IMAGE),
    _member("fcn_resnet50", *_IMAGE),
    _member("lraspp_mobilenet_v3_large", *_IMAGE),
    _member("fasterrcnn_mobilenet_v3_large_320_fpn", *_IMAGE, around=_UpToTheHeads),
    _member("fasterrcnn_resnet50_fpn_v2", *_IMAGE, around=_UpToTheHeads),
    _member("fcos_resnet50_fpn", *_IMAGE, around=_UpToTheHeads),
    _member("keypointrcnn_resnet50_fpn", *_IMAGE, around=_UpToTheHeads),
    _member("maskrcnn_resnet50_fpn", *_IMAGE, around=_UpToTheHeads),
    _member("retinanet_resnet50_fpn", *_IMAGE, around=_UpToTheHeads),
    _member("ssd300_vgg16", 1, 3, 300, 300, around=_UpToTheHeads),
    _member("ssdlite320_mobilenet_v3_large", 1, 3, 320, 320, around=_UpToTheHeads),
    _video("mc3_18", *_CLIP),
    _video("r2plus1d_18", *_CLIP),
    _video("r3d_18", *_CLIP),
    _video("s3d", 1, 3, 16, 224, 224),
    _video("mvit_v1_b", 1, 3, 16, 224, 224),
    _video("mvit_v2_s", 1, 3, 16, 224, 224),
    _video("swin3d_t", *_CLIP),
    _flow("raft_small"),
    _flow("raft_large"),
]
