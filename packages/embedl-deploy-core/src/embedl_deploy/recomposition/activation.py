"""An activation that is written out, such as x·σ(x) or x/2·(1 + erf(x/√2))  becomes  the module of ``torch.nn``.

What is written is found by what it computes: a few operations of single values, of one tensor and numbers, that give
the values of GELU (by erf or tanh), SiLU, Hardswish, Hardsigmoid or Mish at a thousand points, to 1e-12 in float64. So
every order and spelling is taken, and a rounded constant (1.4142 for √2) is another function, which is left alone.

An operation in place is one step of it, where nobody else sees what it writes: ``x.mul_(x.sigmoid())``.

Declined: values on the way that are used elsewhere.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import fx, nn

from embedl_deploy.graph.forms.activations import ACTIVATIONS
from embedl_deploy.graph.index import call_index
from embedl_deploy.graph.lookup import get_module, has_hooks
from embedl_deploy.graph.metadata import module_path_of
from embedl_deploy.graph.operators import operation
from embedl_deploy.patterns.examples import Example
from embedl_deploy.patterns.matcher import outside_use
from embedl_deploy.patterns.matches import Declined, Matches, PatternMatch
from embedl_deploy.patterns.pattern import Pattern
from embedl_deploy.patterns.replacement import insert_call, replace_match
from embedl_deploy.patterns.tree_match import TreeMatch

#: Operations that one of these functions ends with, and those that may come before.
_ENDS = frozenset({"mul", "div"})
_BENT = frozenset({"erf", "tanh", "sigmoid", "relu6", "hardtanh", "clamp", "hardsigmoid", "softplus"})
_BEFORE = _ENDS | _BENT | {"add", "sub", "pow", "square", "neg"}
_BENT_MODULES = tuple(each.module_class for each in ACTIVATIONS if _BENT.intersection(each.operations))
#: More operations than any of them is written in.
_MOST = 12

#: The modules that are looked for.
_WRITTEN_OUT = tuple(make for activation in ACTIVATIONS for make in activation.written_out)


def _points() -> torch.Tensor:
    return torch.linspace(-20.0, 20.0, 1001, dtype=torch.float64)


@cache
def _values() -> tuple[torch.Tensor, ...]:
    """What each of the activations gives at the points."""
    return tuple(make()(_points()) for make in _WRITTEN_OUT)


class _Applied(nn.Module):
    """A linear layer, and a function of its output, for examples."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 6)
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 8) to (N, 6)."""
        return self.function(self.linear(x))


def _example(function: Callable[[torch.Tensor], torch.Tensor], note: str) -> Example:
    return Example(_Applied(function), (torch.randn(4, 8),), note)


class RecomposeActivationPattern(Pattern):
    """An activation that is written out, as its module."""

    is_conversion = True

    def examples(self) -> list[Example]:
        """Where it matches."""
        return [
            _example(lambda x: x * torch.sigmoid(x), "SiLU"),
            _example(lambda x: 0.5 * x * (1.0 + torch.erf(x / 2**0.5)), "GELU by erf"),
            _example(
                lambda x: 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * torch.pow(x, 3)))),
                "GELU by tanh",
            ),
            _example(lambda x: x * nn.functional.relu6(x + 3) / 6, "Hardswish"),
            _example(lambda x: x.mul_(torch.sigmoid(x)), "SiLU in place"),
        ]

    def near_misses(self) -> list[Example]:
        """Where it does not."""
        return [
            _example(lambda x: x * torch.sigmoid(1.702 * x), "an approximation of GELU, which is another function"),
            _example(lambda x: x * torch.sigmoid(x.flip(0)), "the gate is another tensor"),
            _example(lambda x: (g := torch.sigmoid(x)) * x + g, "the gate is used elsewhere"),
        ]

    def match(self, graph_module: fx.GraphModule) -> Matches:
        """Look at every product that one of the functions may end with."""
        found: list[PatternMatch] = []
        declined: list[Declined] = []
        for node in call_index(graph_module.graph).functional:
            read = _read(node)
            if read is None:
                continue
            nodes = read[0]
            reason = outside_use(nodes)
            if reason is None:
                found.append(PatternMatch(self, TreeMatch(tuple(nodes))))
            else:
                declined.append(Declined(self.name, tuple(each.name for each in nodes), reason))
        return Matches(found, declined)

    def replace(self, pattern_match: PatternMatch) -> list[fx.Node]:
        """Put the module there."""
        last = pattern_match.tree_match.last
        read = _read(last)
        assert read is not None  # it matched
        _, source, module = read
        caller, name = module_path_of(last), type(module).__name__.lower()
        activated = insert_call(pattern_match, module, (source,), path=f"{caller}.{name}" if caller else name)
        replace_match(pattern_match, activated)
        return [activated]


def _read(end: fx.Node) -> tuple[list[fx.Node], fx.Node, nn.Module] | None:
    """The nodes that compute an activation, the last of them ``end``, what they compute it of, and the activation."""
    if operation(end) not in _ENDS:
        return None
    ways = _ancestors(end)
    if not any(_is_bent(node) for node in ways):
        return None
    for source in sorted(dict.fromkeys(value for node in ways for value in node.all_input_nodes), reverse=True):
        nodes = _between(source, end)
        values = None if nodes is None else _computed(nodes, source)
        if nodes is None or values is None:
            continue
        for make, wanted in zip(_WRITTEN_OUT, _values(), strict=True):
            if values.shape == wanted.shape and torch.allclose(values, wanted, rtol=1e-12, atol=1e-12):
                return nodes, source, make()
    return None


def _is_bent(node: fx.Node) -> bool:
    return operation(node) in _BENT or (node.op == "call_module" and isinstance(get_module(node), _BENT_MODULES))


def _may_come_before(node: fx.Node) -> bool:
    if node.op == "call_module":
        module = get_module(node)
        return module is not None and type(module) in _BENT_MODULES and not has_hooks(module)
    return operation(node) in _BEFORE


def _ancestors(end: fx.Node) -> list[fx.Node]:
    """The operations of single values that a value is made by, itself the first."""
    found, waiting = {end: None}, [end]
    while waiting and len(found) < 2 * _MOST:
        for value in waiting.pop().all_input_nodes:
            if value not in found and _may_come_before(value):
                found[value] = None
                waiting.append(value)
    return list(found)


def _between(source: fx.Node, end: fx.Node) -> list[fx.Node] | None:
    """The nodes that make ``end`` of ``source`` and numbers alone, in graph order; ``None`` if there is more."""
    found, waiting = {end}, [end]
    while waiting:
        for value in waiting.pop().all_input_nodes:
            if value is source or value in found:
                continue
            if len(found) >= _MOST or not _may_come_before(value):
                return None
            found.add(value)
            waiting.append(value)
    return sorted(found)


def _computed(nodes: list[fx.Node], source: fx.Node) -> torch.Tensor | None:
    """What nodes give at the points."""
    values: dict[fx.Node, Any] = {source: _points()}
    for node in nodes:
        args, kwargs = fx.map_arg((node.args, node.kwargs), values.__getitem__)
        call: Any = get_module(node) if node.op == "call_module" else node.target
        try:
            values[node] = (
                getattr(args[0], call)(*args[1:], **kwargs) if isinstance(call, str) else call(*args, **kwargs)
            )
        except (TypeError, ValueError, RuntimeError):  # an operand that is not a number, such as a dtype or a text
            return None
    result = values[nodes[-1]]
    return result if isinstance(result, torch.Tensor) else None
