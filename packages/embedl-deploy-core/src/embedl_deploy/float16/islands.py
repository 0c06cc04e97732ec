"""Nodes of a graph put into float32, with casts around them."""

from collections.abc import Collection

import torch
from torch import fx, nn

from embedl_deploy.graph.edit import add_call, deep_copy, put_module
from embedl_deploy.graph.fixed_types import FLOAT32_INPUTS
from embedl_deploy.graph.lookup import get_constant, submodule
from embedl_deploy.modules import fix_parametrized_weights
from embedl_deploy.modules.float32 import Float32Tensor, ToFloat32, ToModelType, keep_float32


def put_into_float32(
    model: fx.GraphModule, names: Collection[str], outgrown: Collection[str], written: Collection[str] = ()
) -> fx.GraphModule:
    """A copy of a model in which some nodes stay in float32 whatever type the model is converted to.

    Args:
        model: In float32. Not modified.
        names: Names of the nodes. Inputs among them are given in float32.
        outgrown: Names of nodes whose value float16 does not hold; an output among them is in float32.
        written: Names of nodes whose value others write to, which is cast where it is read.
    """
    copied = deep_copy(model)
    islands = _Islands(copied, {node for node in copied.graph.nodes if node.name in names}, written)
    for node in list(copied.graph.nodes):
        if node in islands.kept:
            islands.keep(node)
        else:
            islands.leave(node, outgrown)
    inputs = tuple(node.name for node in islands.kept if node.op == "placeholder")
    if inputs:
        copied.meta[FLOAT32_INPUTS] = inputs
    copied.graph.lint()
    copied.recompile()
    return copied


class _Islands:
    """Puts nodes into float32, one cast for each value and direction.

    Args:
        model: The model, which is changed.
        kept: Its nodes that stay in float32.
        written: Names of nodes whose value others write to.
    """

    def __init__(self, model: fx.GraphModule, kept: set[fx.Node], written: Collection[str]) -> None:
        self.model, self.kept, self.written = model, kept, written
        self.casts: dict[tuple[fx.Node, type[nn.Module]], fx.Node] = {}
        self.elsewhere = {
            id(tensor)
            for node in model.graph.nodes
            if node.op in ("call_module", "get_attr") and node not in kept
            for tensor in _tensors_of(node)
        }

    def keep(self, node: fx.Node) -> None:
        """Put a node into float32: what it reads is cast, and its parameters stay."""
        for source in node.all_input_nodes:
            if source not in self.kept:
                node.replace_input_with(source, self._cast(source, ToFloat32))
        if node.op == "call_module":
            self._keep_state(str(node.target))
        if node.op == "get_attr" and isinstance(get_constant(node), torch.Tensor):
            self._replace(node)

    def leave(self, node: fx.Node, outgrown: Collection[str]) -> None:
        """Cast what a node reads of those in float32 to the model's type."""
        for source in node.all_input_nodes:
            if source in self.kept and not (node.op == "output" and source.name in outgrown):
                if source.name in self.written:
                    with self.model.graph.inserting_before(node):
                        name = f"{source.name}_to_model_type"
                        node.replace_input_with(source, add_call(self.model, name, ToModelType(), source))
                    continue
                node.replace_input_with(source, self._cast(source, ToModelType))

    def _cast(self, source: fx.Node, kind: type[nn.Module]) -> fx.Node:
        if (source, kind) not in self.casts:
            suffix = "to_float32" if kind is ToFloat32 else "to_model_type"
            after = source
            while after.op == "placeholder" and after.next.op == "placeholder":
                after = after.next  # inputs stay together at the start
            with self.model.graph.inserting_after(after):
                self.casts[source, kind] = add_call(self.model, f"{source.name}_{suffix}", kind(), source)
        return self.casts[source, kind]

    def _keep_state(self, path: str) -> None:
        """Let a module keep its parameters in float32; those that others read as well it has to itself."""
        module = submodule(self.model, path)
        state = (*module.parameters(), *module.buffers())
        if not any(tensor.is_floating_point() for tensor in state):
            return
        if any(id(tensor) in self.elsewhere for tensor in state):
            module = deep_copy(module)
            put_module(self.model, path, module)
        fix_parametrized_weights(module)
        keep_float32(module)

    def _replace(self, node: fx.Node) -> None:
        with self.model.graph.inserting_before(node):
            name = f"{node.name}_in_float32"
            self.model.add_submodule(name, Float32Tensor(get_constant(node)))
            tensor = self.model.graph.create_node("call_module", name, (), name=name)
        tensor.meta = dict(node.meta)
        node.replace_all_uses_with(tensor)
        self.kept.add(tensor)
        self.model.graph.erase_node(node)


def _tensors_of(node: fx.Node) -> list[torch.Tensor]:
    if node.op == "get_attr":
        value = get_constant(node)
        return [value] if isinstance(value, torch.Tensor) else []
    module = submodule(node.graph.owning_module, str(node.target))  # type: ignore[arg-type]  # it belongs to one
    return [*module.parameters(), *module.buffers()]
