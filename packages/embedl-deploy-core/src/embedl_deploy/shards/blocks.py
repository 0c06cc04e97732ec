"""Divides a graph into blocks: the layers of a decoder, what is before them, and what is behind.

Blocks are runs of nodes. Between two layers the cut is where the fewest values cross it: behind a residual sum, one
tensor, beside what all layers read, such as a mask. Where quantizing one block would need another, because a tensor is
quantized for readers in both, the two are one block.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import pairwise

from torch import fx

from embedl_deploy.errors import InputError, QuantizationError
from embedl_deploy.graph.arguments import argument_at
from embedl_deploy.graph.effects import Effects
from embedl_deploy.graph.lookup import get_module
from embedl_deploy.numerics.points import PointKind
from embedl_deploy.quantize.placing.decisions import Decision

#: Not of any block: inputs, the end, and tensors of the model, which every block reads for itself.
_OUTSIDE = ("placeholder", "output", "get_attr")


@dataclass(frozen=True)
class Block:
    """A run of nodes.

    Attributes:
        name: The layers in it, or ``"before …"``, ``"after …"``.
        nodes: In the order of the graph.
        inputs: Values from before that it, or a later block, reads.
        outputs: Values that later blocks read, also from before it; of the last block the model's outputs.
    """

    name: str
    nodes: tuple[fx.Node, ...]
    inputs: tuple[fx.Node, ...]
    outputs: tuple[fx.Node, ...]


def find_blocks(
    model: fx.GraphModule, decisions: Sequence[Decision], layers: str | None, *, alone: bool
) -> tuple[Block, ...]:
    """The blocks of a transformed model.

    Args:
        model: The model.
        decisions: What will be quantized.
        layers: A glob over paths, such as ``"model.layers.*"``; ``None`` for the numbered children of one module that
            have the most parameters. Where there are none, the model is one block.
        alone: Whether what computes a quantized tensor has to be in the block of its readers, as smoothing has it.

    Raises:
        InputError: No module has such a path.
        QuantizationError: The graph writes to a tensor of the model, which other blocks may read.
    """
    written = sorted(Effects(model.graph).written_attributes())
    if written:
        raise QuantizationError(
            f"The model writes to {', '.join(map(repr, written))} when it runs, so it cannot be quantized in blocks. "
            "If it keeps a cache, switch that off before transform: model.config.use_cache = False."
        )
    nodes = [node for node in model.graph.nodes if node.op not in _OUTSIDE]
    pattern = _most_of_the_parameters(model) if layers is None else layers
    layer_of = {node: name for node in nodes if (name := _layer(node, pattern)) is not None}
    if layers is not None and not layer_of:
        raise InputError(f"blocks={layers!r}: no module that the model calls has such a path.")
    names, cuts = _cuts(nodes, layer_of)
    for first, last in _together(model, nodes, cuts, decisions, alone=alone):
        cuts = [cut for cut in cuts if not first < cut <= last]
    bounds = [0, *cuts, len(nodes)]
    spans = list(pairwise(bounds))
    inside = [list(dict.fromkeys(names[i] for i in range(*span) if names[i])) for span in spans]
    crossing = [_crossing(model.graph, nodes, cut) for cut in bounds]
    return tuple(
        Block(_name(inside, i), tuple(nodes[slice(*span)]), tuple(crossing[i]), tuple(crossing[i + 1]))
        for i, span in enumerate(spans)
    )


def _name(inside: list[list[str]], index: int) -> str:
    own = inside[index]
    if own:
        return own[0] if len(own) == 1 else f"{own[0]} … {own[-1]}"
    later = next((names[0] for names in inside[index:] if names), None)
    if later is not None:
        return f"before {later}"
    return f"after {inside[index - 1][-1]}" if index else "the model"


def _layer(node: fx.Node, pattern: str | None) -> str | None:
    """The layer that a call is in: as much of its path as the pattern has parts."""
    if pattern is None or node.op != "call_module":
        return None
    parts, wanted = str(node.target).split("."), pattern.split(".")
    fits = len(parts) >= len(wanted) and all(map(fnmatchcase, parts, wanted))
    return ".".join(parts[: len(wanted)]) if fits else None


def _most_of_the_parameters(model: fx.GraphModule) -> str | None:
    """The glob of the numbered modules that have the most parameters together, of the outermost of them."""
    sizes: dict[str, int] = {}
    numbers: dict[str, set[str]] = {}
    for name, parameter in model.named_parameters():
        for match in re.finditer(r"\.(\d+)\.", name):
            prefix = name[: match.start()]
            sizes[prefix] = sizes.get(prefix, 0) + parameter.numel()
            numbers.setdefault(prefix, set()).add(match[1])
    several = [prefix for prefix in sizes if len(numbers[prefix]) > 1]
    best = max(several, key=lambda prefix: (sizes[prefix], -len(prefix)), default=None)
    return None if best is None else f"{best}.*"


def _cuts(nodes: list[fx.Node], layer_of: dict[fx.Node, str]) -> tuple[list[str], list[int]]:
    """The layer that each node is in, or ``""``, and the numbers of nodes before which to cut."""
    places: dict[str, list[int]] = {}
    for i, node in enumerate(nodes):
        if node in layer_of:
            places.setdefault(layer_of[node], []).append(i)
    spans: list[tuple[int, int]] = []
    for first, last in sorted((where[0], where[-1]) for where in places.values()):
        if spans and first <= spans[-1][1]:  # layers that take turns are one block
            spans[-1] = (spans[-1][0], max(last, spans[-1][1]))
        else:
            spans.append((first, last))
    names = [layer_of.get(node, "") for node in nodes]
    if not spans:
        return names, []
    cuts = [spans[0][0]]
    for (_, last), (first, _) in pairwise(spans):
        cuts.append(_narrowest(nodes, last + 1, first))
    behind = range(spans[-1][1] + 1, len(nodes))
    call = next((i for i in behind if nodes[i].op == "call_module"), None)
    if call is not None:
        cuts.append(_narrowest(nodes, behind[0], call))
    return names, [cut for cut in dict.fromkeys(cuts) if 0 < cut < len(nodes)]


def _narrowest(nodes: list[fx.Node], first: int, last: int) -> int:
    """Between two numbers, both included, the first at which the fewest values cross."""
    graph = nodes[0].graph
    return min(range(first, last + 1), key=lambda cut: len(_crossing(graph, nodes, cut)))


def _crossing(graph: fx.Graph, nodes: list[fx.Node], cut: int) -> list[fx.Node]:
    """What nodes from a number on read of those before it, inputs among them, in the order of the graph."""
    if cut == 0:
        return list(graph.find_nodes(op="placeholder"))
    later = {*nodes[cut:], next(iter(graph.find_nodes(op="output")))}
    before = (*graph.find_nodes(op="placeholder"), *nodes[:cut])
    return [node for node in before if not later.isdisjoint(node.users)]


def _together(
    model: fx.GraphModule,
    nodes: list[fx.Node],
    cuts: list[int],
    decisions: Sequence[Decision],
    *,
    alone: bool,
) -> Iterable[tuple[int, int]]:
    """Numbers of nodes between which there may be no cut."""
    number = {node: i for i, node in enumerate(nodes)}
    effects = Effects(model.graph)
    quantized: dict[fx.Node, list[int]] = {}
    for decision in decisions:
        point = decision.point
        if decision.config is None:
            continue
        if point.kind is PointKind.OUTPUT:
            yield number[point.node], max((number[user] for user in point.node.users if user in number), default=0)
        elif point.kind is PointKind.INPUT:
            source = argument_at(point.node, point.index)
            if isinstance(source, fx.Node):
                quantized.setdefault(source, []).append(number[point.node])
    for source, readers in quantized.items():
        yield (number.get(source, min(readers)) if alone else min(readers)), max(readers)
    for cut in cuts:
        for value in _crossing(model.graph, nodes, cut):
            for writer in effects.written_after(value):
                if number.get(writer, -1) >= cut:
                    yield number.get(value, 0), number[writer]
    calls: dict[int, list[int]] = {}
    for node in nodes:
        module = get_module(node) if node.op == "call_module" else None
        for part in () if module is None else module.modules():
            if part._parameters:
                calls.setdefault(id(part), []).append(number[node])
    yield from ((min(numbers), max(numbers)) for numbers in calls.values())
