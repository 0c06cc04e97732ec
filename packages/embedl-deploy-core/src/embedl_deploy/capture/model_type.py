"""Represents the model's type and device in a graph, so that both can change later.

``torch.export`` writes down what it saw: ``zeros(…, dtype=float32, device=cpu)``, wherever the model's code asked for
``dtype=x.dtype, device=x.device``. Here such a literal becomes what a symbolic trace would have, an attribute of a
tensor:

    model_type = self.model_type          a number of the model's type, on its device: a buffer
    dtype = model_type.dtype
    device = model_type.device
    zeros = aten.zeros(…, dtype=dtype, device=device)
    finfo = torch.finfo(dtype)
    finfo_min = finfo.min

A buffer of its own, and not an input or a weight, because a model of text has no input in floating point, and any
weight may be fused, folded or stored as integers.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx, nn
from torch._ops import HigherOrderOperator
from torch.fx.node import map_aggregate

from embedl_deploy.graph.edit import add_module, is_free

aten: Any = torch.ops.aten

_NAME, _CONSTANTS = "model_type", "made_by_forward"
#: They give back a tensor that is of the type and on the device that they are asked for.
CONVERSIONS = frozenset({aten.to.dtype, aten.to.dtype_layout, aten.to.device, aten.to.other, aten.type_as.default})
#: Arguments of conversions that ask for a new tensor, by their names.
_ASKING_FOR_A_COPY = ("copy", "memory_format")


class KeptType(nn.Module):
    """Tensors that keep their types when a model is converted, and move where it moves."""

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> "KeptType":
        def moved(tensor: torch.Tensor) -> torch.Tensor:
            found = fn(tensor)
            return found if found.dtype is tensor.dtype else tensor.to(found.device)

        return super()._apply(moved, recurse)  # type: ignore[no-any-return,no-untyped-call]  # torch's


def follow_the_model(
    graph_module: fx.GraphModule,
    device: torch.device | None,
    dtype: torch.dtype | None = None,
    own: torch.dtype = torch.float32,
    limits: Mapping[float, str] | None = None,
) -> None:
    """Make literals that stand for the model's device and type follow them, in a graph and the graphs inside it.

    Args:
        graph_module: What was captured; changed in place.
        device: The device that the model was on.
        dtype: The type that stands for the model's, in literals and in ``meta["val"]``; ``None`` if none does.
        own: The model's type.
        limits: Numbers that stand for limits of the model's type, and which: ``"min"``, ``"eps"``, ...
    """
    for part in [part for part in graph_module.modules() if isinstance(part, fx.GraphModule)]:
        _Following(part, device, dtype, own, limits or {}).run()


class ModelType:
    """Nodes of a graph that say the type and the device of its model; made when they are asked for.

    Args:
        part: The graph.
        device: The device that the model is on.
        own: The model's type.
    """

    def __init__(self, part: fx.GraphModule, device: torch.device | None, own: torch.dtype) -> None:
        self.part, self.device, self.own = part, device, own
        self._made: dict[str, fx.Node] = {}

    def is_its_device(self, value: Any) -> bool:
        """Whether a literal is the device that the model is on."""
        if not isinstance(value, torch.device) or self.device is None or value.type != self.device.type:
            return False
        return (value.index or 0) == (self.device.index or 0)

    def attribute(self, name: str) -> fx.Node:
        """``"dtype"`` or ``"device"``."""
        return self._node(name, getattr, lambda: (self._model_type(), name))

    def limit(self, name: str) -> fx.Node:
        """What ``torch.finfo`` has under that name for the model's type."""
        finfo = self._node("finfo", torch.finfo, lambda: (self.attribute("dtype"),))
        return self._node(f"finfo_{name}", getattr, lambda: (finfo, name))

    def _model_type(self) -> fx.Node:
        if _NAME not in self._made:
            name, count = _NAME, 0
            while not is_free(self.part, name):
                count += 1
                name = f"{_NAME}_{count}"
            self.part.register_buffer(name, torch.zeros((), dtype=self.own, device=self.device), persistent=False)
            with self._before_what_is_called():
                self._made[_NAME] = self.part.graph.get_attr(name)
        return self._made[_NAME]

    def _node(self, name: str, target: Callable[..., Any], arguments: Callable[[], tuple[Any, ...]]) -> fx.Node:
        """One node for each name."""
        if name not in self._made:
            given = arguments()
            with self._before_what_is_called():
                self._made[name] = self.part.graph.create_node("call_function", target, given, name=name)
        return self._made[name]

    def _before_what_is_called(self) -> Any:
        ours = set(self._made.values())
        nodes = self.part.graph.nodes
        first = next(node for node in nodes if node.op not in ("placeholder", "get_attr") and node not in ours)
        return self.part.graph.inserting_before(first)


class _Following:
    """One graph."""

    def __init__(
        self,
        part: fx.GraphModule,
        device: torch.device | None,
        dtype: torch.dtype | None,
        own: torch.dtype,
        limits: Mapping[float, str],
    ) -> None:
        self.part, self.dtype, self.limits = part, dtype, limits
        self.model_type = ModelType(part, device, own)

    def run(self) -> None:
        """Follow."""
        changed = False
        for node in list(self.part.graph.nodes):
            if node.op not in ("call_function", "call_module"):
                continue
            if self._changes_nothing(node):
                node.replace_all_uses_with(node.args[0])
                self.part.graph.erase_node(node)
                changed = True
                continue
            if isinstance(
                node.target, HigherOrderOperator
            ):  # the type of torch.autocast, with which no model is marked
                continue
            self._leave_to_the_input(node)
            args, kwargs = map_aggregate((node.args, node.kwargs), self._following)
            if (args, kwargs) != (node.args, node.kwargs):
                node.args, node.kwargs = args, kwargs
                changed = True
        if changed:
            self.part.recompile()

    def _is_of_the_model(self, node: Any) -> bool:
        """Whether a node's value is a tensor of the model's type."""
        value = node.meta.get("val") if isinstance(node, fx.Node) else None
        return self.dtype is not None and isinstance(value, torch.Tensor) and value.dtype is self.dtype

    def _changes_nothing(self, node: fx.Node) -> bool:
        """Whether it converts what is of the model's type to the model's type."""
        if node.target not in CONVERSIONS or not self._is_of_the_model(node) or not self._is_of_the_model(node.args[0]):
            return False
        given = self._named(node)
        if any(given.get(name) for name in _ASKING_FOR_A_COPY):
            return False
        same_place = node.meta["val"].device == node.args[0].meta["val"].device  # type: ignore[union-attr]
        return same_place and given.get("layout") in (None, torch.strided)

    def _named(self, node: fx.Node) -> dict[str, Any]:
        """The arguments of a call of an operator, by the names of its parameters."""
        schema: Any = node.target._schema  # type: ignore[union-attr]
        return {**dict(zip((a.name for a in schema.arguments), node.args, strict=False)), **node.kwargs}

    def _leave_to_the_input(self, node: fx.Node) -> None:
        """Leave out what an operator takes from its input anyway, as in ``zeros_like(x, dtype=x.dtype)``."""
        if not isinstance(node.target, torch._ops.OpOverload) or node.target in CONVERSIONS or not node.args:
            return
        first: Any = node.args[0].meta.get("val") if isinstance(node.args[0], fx.Node) else None
        if not isinstance(first, torch.Tensor):
            return
        for index, parameter in enumerate(node.target._schema.arguments):
            if parameter.name not in ("dtype", "device") or parameter.type.kind() != "OptionalType":
                continue
            value = node.args[index] if index < len(node.args) else node.kwargs.get(parameter.name)
            is_dtype = value is not None and value is self.dtype and first.dtype is self.dtype
            if is_dtype or (self.model_type.is_its_device(value) and self.model_type.is_its_device(first.device)):
                if index < len(node.args):
                    node.update_arg(index, None)
                else:
                    node.kwargs = {name: given for name, given in node.kwargs.items() if name != parameter.name}

    def _following(self, value: Any) -> Any:
        if value is not None and value is self.dtype:
            return self.model_type.attribute("dtype")
        if self.model_type.is_its_device(value):
            return self.model_type.attribute("device")
        if type(value) is float and value in self.limits:
            return self.model_type.limit(self.limits[value])
        return value


def keep_types(graph_module: fx.GraphModule, model: nn.Module) -> None:
    """Let tensors of a graph that are not parameters or buffers of its model keep their types, as its code would.

    Args:
        graph_module: What was captured; changed in place.
        model: The model that was.
    """
    state = (*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False))
    own = {name for name, _ in state}
    kept, path = KeptType(), ""
    kept.training = graph_module.training
    for node in graph_module.graph.find_nodes(op="get_attr"):
        target = str(node.target)
        parent, _, name = target.rpartition(".")
        holder = graph_module.get_submodule(parent)
        value = holder._buffers.get(name)
        if target in own or value is None or not value.is_floating_point():
            continue
        path = path or add_module(graph_module, _CONSTANTS, kept)
        kept.register_buffer(target.replace(".", "_"), value)
        for use in graph_module.graph.find_nodes(op="get_attr"):
            if use.target == target:
                use.target = f"{path}.{target.replace('.', '_')}"
        del holder._buffers[name]
    if path:
        graph_module.recompile()
