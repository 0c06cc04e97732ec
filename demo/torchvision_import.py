"""Importing torchvision where its compiled operators do not load.

A torchvision built for CUDA beside a torch built for the CPU fails on import, because it describes operators that its
library would have declared. Declaring them here is enough for the models, which use none of them.
"""

import sys
from types import ModuleType
from typing import Any

import torch

_library: list[Any] = []  # torch forgets the declarations when the object goes


def import_torchvision() -> ModuleType:
    """``import torchvision``, with the missing declarations made if need be."""
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "DEF")
        library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _library.append(library)
        import torchvision
    module: ModuleType = torchvision
    return module
