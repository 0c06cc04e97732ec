"""Compares two graphs with the same calls, call by call."""

from dataclasses import dataclass
from typing import Any

from torch import fx

from embedl_deploy.graph.recording import recorded_values
from embedl_deploy.validation.checked import checked
from embedl_deploy.verify import Difference, difference, signal_to_noise


@checked
@dataclass(frozen=True)
class LayerDifference:
    """How far the value of a node is from that of the node of the same name in the reference.

    Attributes:
        node: Its name.
        module: Path of the module that it calls; empty for a function.
        sqnr: Signal to quantization noise, 10·log₁₀(Σ y² / Σ (y' − y)²), in dB; infinite where nothing differs.
        difference: The largest difference.
    """

    node: str
    module: str
    sqnr: float
    difference: Difference


def compare_layers(
    reference: fx.GraphModule, other: fx.GraphModule, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[LayerDifference, ...]:
    """Run both and compare the nodes that have the same name, kind and shape, in the order of ``other``."""
    before, after = (recorded_values(model, args, kwargs) for model in (reference, other))
    found = []
    for node in other.graph.nodes:
        x, y = before.get(node.name), after.get(node.name)
        if not node.op.startswith("call_") or x is None or y is None or x.shape != y.shape:
            continue
        if x.is_floating_point() and y.is_floating_point():
            module = str(node.target) if node.op == "call_module" else ""
            found.append(LayerDifference(node.name, module, signal_to_noise(x, y), difference(x, y)))
    return tuple(found)
