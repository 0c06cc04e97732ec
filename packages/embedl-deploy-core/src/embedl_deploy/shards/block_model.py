"""A block as a model of its own, whose inputs are the values that flow into it, and its weights from the shards."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import fx, nn

from embedl_deploy.errors import InputError
from embedl_deploy.graph.edit import deep_copy, rebuild
from embedl_deploy.graph.lookup import get_module
from embedl_deploy.quantize.placing.decisions import Decision
from embedl_deploy.shards.blocks import Block
from embedl_deploy.shards.origins import Origin
from embedl_deploy.shards.source import Shards


def block_model(model: fx.GraphModule, block: Block) -> fx.GraphModule:
    """A block of a model as a graph module of its own; nodes have the names that they have in the model.

    It takes the values of ``block.inputs`` and returns a tuple, those of ``block.outputs``.
    """
    graph, made = fx.Graph(), dict[fx.Node, fx.Node]()
    for value in block.inputs:
        made[value] = graph.placeholder(value.name)
        made[value].meta = dict(value.meta)
    inside = set(block.nodes)
    for node in model.graph.nodes:
        read_here = node.op == "get_attr" and not inside.isdisjoint(node.users)
        if node in inside or read_here:
            made[node] = graph.node_copy(node, made.__getitem__)
    graph.output(tuple(_value(model.graph, made, value) for value in block.outputs))
    names = {node.name: new.name for node, new in made.items()}
    assert all(old == new for old, new in names.items())  # they are those of one graph
    part = rebuild(fx.GraphModule(model, graph, class_name=type(model).__name__))
    part.training = model.training
    return deep_copy(part)


def _value(graph: fx.Graph, made: Mapping[fx.Node, fx.Node], value: fx.Node) -> fx.Node:
    if value not in made:
        raise InputError(f"{value.name!r} of the graph {graph} is read where it is not computed.")
    return made[value]


def decisions_in(part: fx.GraphModule, decisions: Sequence[Decision]) -> list[Decision]:
    """The decisions about points of a block, with its own nodes and modules."""
    nodes = {node.name: node for node in part.graph.find_nodes(op="call_module")}
    found = []
    for decision in decisions:
        node = nodes.get(decision.point.node.name)
        module = None if node is None else get_module(node)
        if node is not None and module is not None:
            found.append(replace(decision, point=replace(decision.point, node=node, module=module)))
    return found


class Loaded:
    """Gives the tensors of a block their values.

    Args:
        part: What :func:`block_model` made; changed in place.
        origins: Where the model's tensors come from.
        shards: The weights.

    Attributes:
        whole: Names in the shards of parameters and buffers that are all of a tensor there, by the tensor's id.
    """

    def __init__(self, part: fx.GraphModule, origins: Mapping[str, Origin], shards: Shards) -> None:
        self.whole: dict[int, str] = {}
        self._read: dict[str, torch.Tensor] = {}
        self._made: dict[Origin, torch.Tensor] = {}
        self._shards = shards
        for path, module in list(part.named_modules(remove_duplicate=False)):
            for table in (module._parameters, module._buffers):
                for key, tensor in table.items():
                    if tensor is not None and tensor.is_meta:
                        table[key] = self._value(origins[f"{path}.{key}" if path else key], tensor)
        self._read.clear()
        self.bytes = sum(tensor.untyped_storage().nbytes() for tensor in self._made.values())

    def _value(self, origin: Origin, like: torch.Tensor) -> torch.Tensor:
        if origin in self._made:
            return self._made[origin]
        if origin.name not in self._read:
            self._read[origin.name] = self._shards.read(origin.name).to(origin.dtype)
        value = self._read[origin.name]
        if origin.view is not None:
            value = value.as_strided(*origin.view)
        if isinstance(like, nn.Parameter):
            value = nn.Parameter(value, requires_grad=like.requires_grad)
        self._made[origin] = value
        if origin.view is None:
            self.whole[id(value)] = origin.name
        return value
