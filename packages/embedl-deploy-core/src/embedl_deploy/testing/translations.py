"""The exporter's translations, read once a process.

``torch.onnx.export`` parses the source of its five hundred translations at every call. Of a small model that is most of
an export, and tests export small models by the hundred.
"""

import copy
import functools
from typing import Any


def read_translations_once() -> None:
    """Let every further ``torch.onnx.export`` of this process begin with a copy of what the first has read.

    A translation that is registered with onnxscript itself afterwards is not seen; those that an export is given are.
    """
    from torch.onnx._internal.exporter._registration import ONNXRegistry  # here: it imports the exporter

    reads = ONNXRegistry.from_torchlib
    if hasattr(reads, "__wrapped__"):
        return
    read = functools.cache(reads)

    @functools.wraps(reads)
    def copied(*opset: Any, **named: Any) -> ONNXRegistry:
        registry = copy.copy(read(*opset, **named))
        registry.functions = {target: list(found) for target, found in registry.functions.items()}
        return registry

    ONNXRegistry.from_torchlib = staticmethod(copied)  # type: ignore[method-assign]
