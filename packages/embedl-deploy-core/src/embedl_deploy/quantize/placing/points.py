"""The quantization points of a transformed model."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import fx, nn

from embedl_deploy.errors import InputError, QuantizationError
from embedl_deploy.graph.arguments import argument_at
from embedl_deploy.graph.lookup import get_module
from embedl_deploy.modules import FusedModule, NamedWeight, QuantStub, WeightFakeQuantize, named_weights
from embedl_deploy.numerics.points import PointKind, QuantPoint
from embedl_deploy.patterns import PatternMatch, QDQPoint

#: Argument positions of the points that patterns name.
POSITIONS = {point: point.position for point in QDQPoint if point.position is not None}


def patterns_by_node(matches: Any) -> dict[str, PatternMatch]:
    """Which match put which node there: names of the new nodes → match.

    Args:
        matches: As in a result: node name → pattern name → match; or ``None``.

    Raises:
        InputError: It is something else.
    """
    found: dict[str, PatternMatch] = {}
    if not (matches is None or isinstance(matches, Mapping)):
        raise InputError(f"matches is {matches!r}; expected result.matches, as transform returns them.")
    for row in (matches or {}).values():
        for match in row.values() if isinstance(row, Mapping) else (row,):
            if not isinstance(match, PatternMatch):
                raise InputError(f"matches holds {match!r}; expected result.matches, as transform returns them.")
            if not match.pattern.is_conversion:
                found.update(dict.fromkeys(match.replaced_by, match))
    return found


def points_of(graph_module: fx.GraphModule, matches: Mapping[str, PatternMatch]) -> Iterator[QuantPoint]:
    """Every point at every call, in graph order.

    What a pattern's ``qdq_points`` and the module's ``inputs_to_quantize`` both name is a point. A module that no match
    of ``matches`` has made is taken by its own declaration alone.

    Raises:
        QuantizationError: A module has a weight stub, and it is not clear which weight the stub quantizes.
    """
    for node in graph_module.graph.nodes:
        module = get_module(node) if node.op == "call_module" else None
        match = matches.get(node.name)
        if module is None or not (isinstance(module, FusedModule) or match is not None):
            continue
        yield from _points_at(node, module, match)


def _points_at(node: fx.Node, module: nn.Module, match: PatternMatch | None) -> Iterator[QuantPoint]:
    path, pattern = str(node.target), "" if match is None else match.pattern_name
    for index in _input_positions(module, match):
        if isinstance(argument_at(node, index), fx.Node):
            yield QuantPoint(node, path, module, PointKind.INPUT, index, f"input {index}", pattern)
    if match is None or match.pattern.qdq_points:
        for weight in _weights(module, path, pattern):
            yield QuantPoint(node, path, module, PointKind.WEIGHT, 0, weight.name, pattern)
    for name, _ in inner_stubs(module):
        yield QuantPoint(node, path, module, PointKind.INNER, 0, name, pattern)
    if match is not None and QDQPoint.OUTPUT in match.pattern.qdq_points:
        yield QuantPoint(node, path, module, PointKind.OUTPUT, 0, "output", pattern)


def _weights(module: nn.Module, path: str, pattern: str) -> Iterator[NamedWeight]:
    """The weights of a module, unless it opts out."""
    says_why = isinstance(module, FusedModule) and module.why_not_quantized is not None
    if isinstance(module, FusedModule) and says_why and not module.input_quant_stubs:
        return
    by = f", from pattern {pattern!r}," if pattern else ""
    for weight in named_weights(module):
        if weight.problem is None:
            yield weight
        elif not says_why:
            raise QuantizationError(_misplaced(weight, f"{type(module).__name__} at {path!r}{by}"))


def _misplaced(weight: NamedWeight, module: str) -> str:
    return (
        f"{module} has a weight stub at {weight.place!r}, but it is not clear which weight it quantizes: "
        f"{weight.problem}. Rename the stub, or make the part a FusedConv or FusedMatmul, which has its own."
    )


def _input_positions(module: nn.Module, match: PatternMatch | None) -> list[int]:
    declared = None if match is None else {POSITIONS[p] for p in match.pattern.qdq_points if p in POSITIONS}
    if not isinstance(module, FusedModule):
        return sorted(declared or ())
    own = set(module.input_quant_stubs)
    return sorted(own if declared is None else own & declared)


def inner_stubs(module: nn.Module) -> Iterator[tuple[str, QuantStub]]:
    """The stubs inside a module that belong neither to an input nor to a weight, by name."""
    inputs = {id(stub) for stub in module.input_quant_stubs.values()} if isinstance(module, FusedModule) else set()
    for name, part in module.named_modules():
        if isinstance(part, QuantStub) and not isinstance(part, WeightFakeQuantize) and id(part) not in inputs:
            yield name, part
