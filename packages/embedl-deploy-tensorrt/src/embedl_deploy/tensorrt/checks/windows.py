"""The rule about the size of windows."""

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from embedl_deploy.artifact import attribute, nodes_of, sizes_of
from embedl_deploy.backend import Rule, Severity, Undecided, Violation

if TYPE_CHECKING:
    import onnx_ir as ir

#: The number of places that a window of two dimensions has to stay below; of one dimension it has one more of size 1.
_PLACES = 100_000


class Windows(Rule):
    """TRT-O04. TensorRT for RTX 1.7: refused by the parser, ``volume(windowSize) < maxKernelDimsProduct``."""

    id = "TRT-O04"
    severity = Severity.ERROR
    title = "A kernel or window has fewer than 100,000 elements; in three dimensions, fewer than 31,622,777."
    remedy = (
        "If it is larger than its map, transform the model with example inputs: ClipPoolWindowPattern clips it. "
        "To pool a whole map, use AdaptiveAvgPool2d(1) or AdaptiveMaxPool2d(1)."
    )

    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Look at convolutions and pools."""
        for node in nodes_of(model, "Conv", "ConvTranspose", "AveragePool", "MaxPool", "LpPool"):
            window = _window(node)
            if window is None:
                yield Undecided(node, "the shape of the weight is not known")
            elif math.prod(window) ** 2 >= _PLACES ** max(2, len(window)):
                yield Violation(node, f"a window of {'×'.join(map(str, window))} = {math.prod(window):,} places")


def _window(node: "ir.Node") -> tuple[int, ...] | None:
    """The sizes of a window; ``None`` if they are those of a weight that is not known."""
    given: tuple[int, ...] | None = attribute(node, "kernel_shape", None)
    if given is not None:
        return tuple(given)
    sizes = sizes_of(node.inputs[1])
    if sizes is None:
        return None
    window = tuple(size for size in sizes[2:] if size is not None)
    return window if len(window) == len(sizes) - 2 else None
