"""A parameter in another shape, for conversions such as ``Linear`` to a 1×1 convolution."""

import torch
from torch import fx, nn
from torch.nn.utils import parametrize

from embedl_deploy.errors import PatternError
from embedl_deploy.graph.forms.form import set_tensor
from embedl_deploy.graph.lookup import get_constant, get_module, owner
from embedl_deploy.patterns.matches import PatternMatch
from embedl_deploy.validation.checked import checked


class Reshape(nn.Module):
    """A parametrization: a tensor, seen in another shape."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor of as many values, in the shape."""
        return tensor.reshape(self.shape)

    def extra_repr(self) -> str:
        """The shape."""
        return str(self.shape)


@checked
def share_reshaped(pattern_match: PatternMatch, module: nn.Module, name: str, tensor: torch.Tensor | None) -> None:
    """Let a new module compute with a parameter of the model, in the module's own shape.

    No value is copied, and the parameter is trained as it was. One that nothing else uses becomes a parameter of the
    new shape over the same memory. One that is shared stays the parameter that it is, and the module sees it through a
    parametrization (``torch.nn.utils.parametrize``), so that everything that shares it continues doing so. Either way
    the module can be deep-copied and fused, and its weight be quantized.

    Args:
        pattern_match: The match that is being replaced.
        module: The new module, made on ``device="meta"`` so that nothing is allocated; its tensor ``name`` gives the
            shape.
        name: ``"weight"`` or ``"bias"``.
        tensor: A parameter or buffer of a matched module; ``None`` leaves the module without one.

    Raises:
        PatternError: The module has no such parameter, or one of another number of values; or the tensor is computed,
            by a parametrization or on the way.
    """
    own = getattr(module, name, None)
    if tensor is None or (isinstance(own, torch.Tensor) and own.shape == tensor.shape):
        set_tensor(module, name, tensor)
        return
    if not isinstance(own, torch.Tensor) or own.numel() != tensor.numel():
        has = "none of that name" if own is None else f"one of the shape {tuple(own.shape)}"
        raise PatternError(
            f"share_reshaped: {type(module).__name__} has {has} for {name!r}, which is to be a tensor of the shape "
            f"{tuple(tensor.shape)}. Make it with the settings that the converted operator has."
        )
    if not tensor.is_leaf:
        raise PatternError(
            f"share_reshaped: {name!r} is computed, by a parametrization or on the way, so there is no parameter to "
            "share. Decline in check(): torch.nn.utils.parametrize.is_parametrized(module)."
        )
    shape = tuple(own.shape)
    if not is_shared(pattern_match, tensor):
        seen = tensor.detach().reshape(shape)
        is_parameter = isinstance(tensor, nn.Parameter)
        set_tensor(module, name, nn.Parameter(seen, tensor.requires_grad) if is_parameter else seen)
        return
    set_tensor(module, name, tensor)
    parametrize.register_parametrization(module, name, Reshape(shape), unsafe=True)


def is_shared(pattern_match: PatternMatch, tensor: torch.Tensor) -> bool:
    """Whether anything but the match reads a tensor: another module, another call of its module, another node."""
    matched = set(pattern_match.nodes)
    root, graph = owner(pattern_match.nodes[0]), pattern_match.nodes[0].graph
    holders = [
        module
        for module in root.modules()
        if any(tensor is held for held in (*module._parameters.values(), *module._buffers.values()))
    ]
    if len([module for module in holders if module is not root]) > 1:
        return True
    held = set(holders)  # of a parametrized module, a part holds it
    for node in graph.nodes:
        if node in matched:
            continue
        if node.op == "call_module" and not held.isdisjoint(_parts(node)):
            return True
        if node.op == "get_attr" and get_constant(node) is tensor and not matched.issuperset(node.users):
            return True
    return False


def _parts(node: fx.Node) -> list[nn.Module]:
    module = get_module(node)
    return [] if module is None else list(module.modules())
