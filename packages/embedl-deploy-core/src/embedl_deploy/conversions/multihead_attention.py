"""nn.MultiheadAttention  becomes  MHAInProjection → ScaledDotProductAttention → Linear.

Where query, key and value are not the same tensor, three ``Linear`` → ``SplitHeads`` stand in place of the first.
The parts hold the original parameters. If one parameter projects all three inputs, each of the three gets a copy of its
third. Only the first output of ``attention(query, key, value)`` is computed. Masks go through ``AttentionMask`` first.

Declined: causal hints; ``add_bias_kv``, ``add_zero_attn``; use of the attention weights; a projection that is cut into
thirds and used elsewhere, too; hooks or parametrizations on the module.
"""

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

from embedl_deploy.graph import get_constant
from embedl_deploy.modules import (
    AttentionMask,
    MHAInProjection,
    ScaledDotProductAttention,
    SplitHeads,
    linear_with,
)
from embedl_deploy.patterns import (
    Applied,
    Example,
    Pattern,
    PatternMatch,
    arguments_by_name,
    claim_container,
    get_module,
    has_hooks,
    insert_call,
    replace_match,
    resolve_module,
)


def _attention(call: Callable[..., Any], *, bias: bool = True, batch_first: bool = True) -> nn.Module:
    """``call`` of an attention with two heads over eight channels, for examples."""
    return Applied(call, nn.MultiheadAttention(8, 2, bias=bias, batch_first=batch_first))


def _sequences() -> tuple[torch.Tensor]:
    """(B, S, 8), for examples."""
    return (torch.randn(2, 5, 8),)


class DecomposeMultiheadAttentionPattern(Pattern):
    """Decompose self-attention or cross-attention, so that its parts can be fused and quantized."""

    tree = (nn.MultiheadAttention,)
    is_conversion = True

    def examples(self) -> list[Example]:
        """Where it matches."""
        return [
            Example(_attention(lambda a, x: a(x, x, x)[0]), _sequences()),
            Example(_attention(lambda a, x: a(x, x, x, need_weights=False)[0], bias=False), _sequences(), "no bias"),
            Example(_attention(lambda a, x: a(x, x, x)[0], batch_first=False), _sequences(), "the batch comes second"),
            Example(
                _attention(lambda a, x: a(x, x, x, key_padding_mask=x[..., 0] > 1)[0]), _sequences(), "a padding mask"
            ),
            Example(_attention(lambda a, x: a(x, x[:, :3], x[:, :3])[0]), _sequences(), "keys of their own"),
        ]

    def near_misses(self) -> list[Example]:
        """Where it does not."""
        return [
            Example(_attention(lambda a, x: a(x, x, x)), _sequences(), "its weights are used"),
            Example(
                _attention(lambda a, x: a(x, x.flip(1), x)[0] + a(x, x, x.flip(1))[0]),
                _sequences(),
                "keys of their own, twice",
            ),
        ]

    def check(self, match: PatternMatch) -> str | None:
        """Take what is computed in one way only, and whose parts no one else needs whole."""
        node = match.tree_match.get_node(0)
        attention = resolve_module(node, nn.MultiheadAttention)
        call = arguments_by_name(node)
        if call["is_causal"]:
            return "is_causal is set, with which torch may ignore the mask: pass the mask alone"
        if attention.bias_k is not None or attention.add_zero_attn:
            return "it adds a bias or zeros to the keys and values"
        if any(has_hooks(m) or nn.utils.parametrize.is_parametrized(m) for m in attention.modules()):
            return "hooks or parametrizations on the module would be lost"
        if not _is_self_attention(attention, call) and _is_used_again(node, attention):
            return "query, key and value are not the same tensor, and what projects all three is used elsewhere, too"
        for user in node.users:
            takes_output = user.op == "call_function" and user.target is operator.getitem and user.args[1] == 0
            unused = user.op == "call_function" and user.target is operator.getitem and not user.users
            if not takes_output and not unused:
                return (
                    f"{user.name} uses more of its result than the attention output; need_weights=False gives no more"
                )
        return None

    def replace(self, pattern_match: PatternMatch) -> list[fx.Node]:
        """Put the three parts there."""
        node = pattern_match.tree_match.last
        attention = resolve_module(node, nn.MultiheadAttention)
        call = arguments_by_name(node)
        masks = (call["key_padding_mask"], call["attn_mask"])
        home = claim_container(pattern_match, node)
        project = _project_together if _is_self_attention(attention, call) else _project_apart
        new, parts = project(pattern_match, attention, call, home)
        if masks != (None, None):
            mask = insert_call(pattern_match, AttentionMask(), (parts[0], *masks), path=f"{home}.mask")
            new.append(mask)
            parts = [*parts, mask]
        sdpa = ScaledDotProductAttention(
            attention.dropout, batch_first=attention.batch_first, unseen_is_nan=call["need_weights"] is not False
        )
        attended = insert_call(pattern_match, sdpa, parts, path=f"{home}.attention")
        output = insert_call(pattern_match, attention.out_proj, (attended,), path=f"{home}.out_proj")
        for user in list(node.users):
            if "tensor_meta" in user.meta and user.args[1] == 0:
                output.meta["tensor_meta"] = user.meta["tensor_meta"]
            user.replace_all_uses_with(output)
            node.graph.erase_node(user)
        node.meta.pop("tensor_meta", None)
        replace_match(pattern_match, output)
        return [*new, attended, output]


def _is_self_attention(attention: nn.MultiheadAttention, call: dict[str, Any]) -> bool:
    return attention._qkv_same_embed_dim and call["query"] is call["key"] is call["value"]


def _is_used_again(node: fx.Node, attention: nn.MultiheadAttention) -> bool:
    """Whether another call, or another module, uses what projects queries, keys and values."""
    root = node.graph.owning_module
    assert root is not None  # whose module was found above
    stored = {id(tensor) for tensor in (attention.in_proj_weight, attention.in_proj_bias) if tensor is not None}
    holders = [m for m in root.modules() if any(id(tensor) in stored for tensor in m._parameters.values())]
    readers = [
        other
        for other in node.graph.nodes
        if (other.op == "call_module" and get_module(other) is attention)
        or (other.op == "get_attr" and id(get_constant(other)) in stored)
    ]
    return len(holders) > 1 or len(readers) > 1


def _project_together(
    pattern_match: PatternMatch, attention: nn.MultiheadAttention, call: dict[str, Any], home: str
) -> tuple[list[fx.Node], list[fx.Node]]:
    """Queries, keys and values by one product; the nodes for that, and the three values."""
    linear = linear_with(attention.in_proj_weight, attention.in_proj_bias)
    projection = MHAInProjection(linear, attention.num_heads, batch_first=attention.batch_first)
    packed = insert_call(pattern_match, projection, (call["query"],) * 3, path=f"{home}.in_proj")
    last = pattern_match.tree_match.last
    with last.graph.inserting_before(last):
        parts = [last.graph.call_function(operator.getitem, (packed, i)) for i in range(3)]
    return [packed, *parts], parts


def _project_apart(
    pattern_match: PatternMatch, attention: nn.MultiheadAttention, call: dict[str, Any], home: str
) -> tuple[list[fx.Node], list[fx.Node]]:
    """The same by a product each."""
    if attention._qkv_same_embed_dim:
        weights = _thirds(attention.in_proj_weight)
    else:
        weights = [attention.q_proj_weight, attention.k_proj_weight, attention.v_proj_weight]
    biases = [None] * 3 if attention.in_proj_bias is None else _thirds(attention.in_proj_bias)
    new, parts = [], []
    for name, weight, bias in zip(("query", "key", "value"), weights, biases, strict=True):
        projected = insert_call(pattern_match, linear_with(weight, bias), (call[name],), path=f"{home}.{name}")
        split = SplitHeads(attention.num_heads, batch_first=attention.batch_first)
        parts.append(insert_call(pattern_match, split, (projected,), path=f"{home}.{name}_heads"))
        new += [projected, parts[-1]]
    return new, parts


def _thirds(tensor: nn.Parameter) -> list[nn.Parameter]:
    return [nn.Parameter(part.clone(), requires_grad=tensor.requires_grad) for part in tensor.detach().chunk(3)]
