"""What fusions of a convolution with a batch norm have to decline, on any hardware."""

from embedl_deploy.modules import BatchNorm, Convolution
from embedl_deploy.patterns import PatternMatch, get_module, shape_of
from embedl_deploy.validation.checked import checked


@checked
def why_not_one_convolution(match: PatternMatch) -> str | None:
    """Why a convolution and the batch norm after it cannot become one module; ``None`` if they can.

    Declined are a transposed convolution whose output size is chosen at the call, and a batch norm over another
    dimension than the convolution's output channels, as ``BatchNorm1d`` has it after a ``Conv1d`` without a batch.

    Args:
        match: Of a tree with a convolution, with or without a batch norm.
    """
    modules = {node: get_module(node) for node in match.nodes}
    found = next(((node, module) for node, module in modules.items() if isinstance(module, Convolution)), None)
    if found is None:
        return "there is no convolution"
    node, conv = found
    if conv.transposed and node.op == "call_module" and len(node.args) + len(node.kwargs) > 1:
        return f"{node.name} is called with an output size, not with the map alone"
    norm = next((module for module in modules.values() if isinstance(module, BatchNorm)), None)
    if norm is None:
        return None
    if norm.num_features != conv.out_channels:
        return f"the batch norm is over {norm.num_features} features, and {node.name} has {conv.out_channels} channels"
    shape = shape_of(node)
    if shape is not None and len(shape) != conv.weight.dim():
        return f"{node.name} is given no batch, so the batch norm is over positions"
    return None
