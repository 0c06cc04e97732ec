"""torchvision beside a CPU build of torch: its wheel is built for CUDA and asks for operators that it does not find."""

import importlib
import sys

import torch

#: What torchvision's Python files refer to while they are imported.
_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)

#: A library's definitions live as long as this object.
_library: torch.library.Library | None = None


def import_torchvision() -> None:
    """Make ``import torchvision`` work; does nothing where it works by itself."""
    global _library
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        _library = torch.library.Library("torchvision", "DEF")
        for schema in _SCHEMAS:
            _library.define(schema)
        importlib.import_module("torchvision")
