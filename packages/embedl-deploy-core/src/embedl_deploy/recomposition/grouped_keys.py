"""Attention whose keys and values are repeated for groups of heads  becomes  grouped attention, without repeating them.

    k[:, :, None].expand(b, h, n, s, d).reshape(b, h * n, s, d)      k, v ─▶ ScaledDotProductAttention(grouped=True)
    k.repeat_interleave(n, dim=1)                                    (…, h, S, D) for queries (…, h·n, L, D)
    k.expand(b, n, s, d)                                             one head for all

Also where keys are repeated before heads and tokens change places. So quantizers and caches have each key once, and the
attention is the one of ``enable_gqa``.

Declined: repeated keys or values that something else reads; one head, joined with another axis, that may be more in
another call. Keys that are repeated otherwise than values, or as a whole (``repeat``), are left alone.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

from embedl_deploy.graph.arguments import argument_at, positional_arguments
from embedl_deploy.graph.edit import deep_copy
from embedl_deploy.graph.fixed_sizes import size_is_fixed
from embedl_deploy.graph.index import call_index
from embedl_deploy.graph.lookup import resolve_module
from embedl_deploy.graph.metadata import shape_of
from embedl_deploy.graph.operators import VIEWS, operation
from embedl_deploy.modules.attention import ScaledDotProductAttention
from embedl_deploy.patterns.examples import Example
from embedl_deploy.patterns.matcher import outside_use
from embedl_deploy.patterns.matches import Declined, Matches, PatternMatch
from embedl_deploy.patterns.pattern import Pattern
from embedl_deploy.patterns.replacement import insert_call, replace_match
from embedl_deploy.patterns.tree_match import TreeMatch
from embedl_deploy.recomposition.repeated_heads import HEADS, Repeated, repeated


class _Attending(nn.Module):
    """Attention, and a function of keys and values before it, for examples."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor], *, of_values: bool = True) -> None:
        super().__init__()
        self.function, self.of_values = function, of_values
        self.attend = ScaledDotProductAttention(joins_heads=False)

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Queries (B, 4, S, D), keys and values of as many heads when the function has been applied."""
        out: torch.Tensor = self.attend(q, self.function(k), self.function(v) if self.of_values else v)
        return out


def repeat_kv(x: torch.Tensor) -> torch.Tensor:
    """(B, 2, S, D) as (B, 4, S, D), as transformers has it."""
    batch, heads, length, width = x.shape
    return x[:, :, None, :, :].expand(batch, heads, 2, length, width).reshape(batch, heads * 2, length, width)


def _example(
    function: Callable[[torch.Tensor], torch.Tensor], note: str, *shape: int, of_values: bool = True
) -> Example:
    keys, values = torch.randn(2, *shape)
    values = values if of_values else torch.randn(2, 4, 5, 4)
    return Example(_Attending(function, of_values=of_values), (torch.randn(2, 4, 5, 4), keys, values), note)


class GroupedKeysPattern(Pattern):
    """Pass each key and value to attention only once."""

    is_conversion = True

    def examples(self) -> list[Example]:
        """Where it matches."""
        return [
            _example(repeat_kv, "", 2, 2, 5, 4),
            _example(lambda x: x.repeat_interleave(2, dim=1), "repeat_interleave", 2, 2, 5, 4),
            _example(lambda x: x.expand(-1, 4, -1, -1), "one head for all", 2, 1, 5, 4),
            _example(lambda x: x.repeat_interleave(2, dim=2).transpose(1, 2), "tokens before heads", 2, 5, 2, 4),
        ]

    def near_misses(self) -> list[Example]:
        """Where it does not."""
        return [
            _example(lambda x: x.repeat(1, 2, 1, 1), "all of them, and once more", 2, 2, 5, 4),
            _example(lambda x: x.repeat_interleave(2, dim=2), "keys are repeated, not heads", 2, 4, 5, 4),
            _example(repeat_kv, "values are not", 2, 2, 5, 4, of_values=False),
        ]

    def match(self, graph_module: fx.GraphModule) -> Matches:
        """Look before every attention."""
        found: list[PatternMatch] = []
        declined: list[Declined] = []
        index = call_index(graph_module.graph)
        for node in index.in_order(index.calling((ScaledDotProductAttention,))):
            read = _read(node)
            if read is None:
                continue
            nodes = (*sorted({*read[0].nodes, *read[1].nodes}), node)
            reason = outside_use(nodes) or _may_be_more_heads(*read)
            if reason is None:
                found.append(PatternMatch(self, TreeMatch(nodes)))
            else:
                declined.append(Declined(self.name, tuple(each.name for each in nodes), reason))
        return Matches(found, declined)

    def replace(self, pattern_match: PatternMatch) -> list[fx.Node]:
        """Put the grouped attention there."""
        node = pattern_match.tree_match.last
        read = _read(node)
        assert read is not None  # it matched
        module = deep_copy(resolve_module(node, ScaledDotProductAttention))
        module.grouped = True
        query, _, _, *masks = positional_arguments(node)
        with node.graph.inserting_before(node):
            inputs: list[Any] = [query, read[0].inserted(), read[1].inserted(), *masks]
        attended = insert_call(pattern_match, module, inputs, home=node)
        replace_match(pattern_match, attended)
        return [attended]


def _may_be_more_heads(*tensors: Repeated) -> str | None:
    """Why one head that is repeated and joined with another axis may be more heads, which join otherwise."""
    for each in tensors:
        first, second = each.swapped or (HEADS, HEADS)
        axis = {first: second, second: first}.get(HEADS, HEADS)
        joined = any(operation(node) in (*VIEWS, "flatten") for node in each.nodes)
        if joined and (shape_of(each.source) or ())[axis] == 1 and not size_is_fixed(each.source, axis):
            return f"{each.source.name} has one head in the example, and may have more: give one with more"
    return None


def _read(node: fx.Node) -> tuple[Repeated, Repeated] | None:
    """What keys and values repeat, if they do, and alike."""
    module = resolve_module(node, ScaledDotProductAttention)
    key, value = argument_at(node, 1), argument_at(node, 2)
    if module.grouped or type(module) is not ScaledDotProductAttention:
        return None
    if not isinstance(key, fx.Node) or not isinstance(value, fx.Node):
        return None
    keys, values, query = repeated(key), repeated(value), argument_at(node, 0)
    if keys is None or values is None or keys.times != values.times or keys.times < 2:
        return None
    heads = [(shape_of(each) or ())[HEADS : HEADS + 1] for each in (query, key, value)]
    return (keys, values) if heads[0] == heads[1] == heads[2] else None
