"""nn.MultiheadAttention  becomes  MHAInProjection → ScaledDotProductAttention → Linear.

The parts hold the original parameters. Only what a caller of ``self_attention(x, x, x)[0]`` sees is computed. Masks go
through ``AttentionMask`` first.

Declined: cross-attention; causal hints; separate embedding sizes of keys and values; ``add_bias_kv``,
``add_zero_attn``; use of the attention weights; hooks or parametrizations on the module.
"""

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

from embedl_deploy.modules import linear_with
from embedl_deploy.patterns import (
    Example,
    Pattern,
    PatternMatch,
    arguments_by_name,
    claim_container,
    has_hooks,
    insert_call,
    replace_match,
    resolve_module,
)
from embedl_deploy.tensorrt.modules.attention import AttentionMask, MHAInProjection, ScaledDotProductAttention
from embedl_deploy.tensorrt.patterns.example_parts import Function


def _attention(call: Callable[..., Any], *, bias: bool = True, batch_first: bool = True) -> nn.Module:
    """``call`` of an attention with two heads over eight channels, for examples."""
    return Function(call, nn.MultiheadAttention(8, 2, bias=bias, batch_first=batch_first))


def _sequences() -> tuple[torch.Tensor]:
    """(B, S, 8), for examples."""
    return (torch.randn(2, 5, 8),)


class DecomposeMultiheadAttentionPattern(Pattern):
    """Open up self-attention so that its parts can be fused and quantized."""

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
        ]

    def near_misses(self) -> list[Example]:
        """Where it does not."""
        return [
            Example(_attention(lambda a, x: a(x, x.flip(1), x)[0]), _sequences(), "keys of their own"),
            Example(_attention(lambda a, x: a(x, x, x)), _sequences(), "its weights are used"),
        ]

    def check(self, match: PatternMatch) -> str | None:
        """Take only plain self-attention."""
        node = match.tree_match.get_node(0)
        attention = resolve_module(node, nn.MultiheadAttention)
        call = arguments_by_name(node)
        if not call["query"] is call["key"] is call["value"]:
            return "query, key and value are not the same tensor"
        if call["is_causal"]:
            return "is_causal is set, with which torch may ignore the mask: pass the mask alone"
        if not attention._qkv_same_embed_dim:
            return "keys or values have an embedding size of their own"
        if attention.bias_k is not None or attention.add_zero_attn:
            return "it adds a bias or zeros to the keys and values"
        if any(has_hooks(m) or nn.utils.parametrize.is_parametrized(m) for m in attention.modules()):
            return "hooks or parametrizations on the module would be lost"
        for user in node.users:
            takes_output = user.op == "call_function" and user.target is operator.getitem and user.args[1] == 0
            unused = user.op == "call_function" and user.target is operator.getitem and not user.users
            if not takes_output and not unused:
                return f"{user.name} uses more of its result than the attention output"
        return None

    def replace(self, pattern_match: PatternMatch) -> list[fx.Node]:
        """Put the three parts there."""
        node = pattern_match.tree_match.last
        attention = resolve_module(node, nn.MultiheadAttention)
        call = arguments_by_name(node)
        query, masks = call["query"], (call["key_padding_mask"], call["attn_mask"])
        home = claim_container(pattern_match, node)
        linear = linear_with(attention.in_proj_weight, attention.in_proj_bias)
        projection = MHAInProjection(linear, attention.num_heads, batch_first=attention.batch_first)
        packed = insert_call(pattern_match, projection, (query, query, query), path=f"{home}.in_proj")
        with node.graph.inserting_before(node):
            parts = [node.graph.call_function(operator.getitem, (packed, i)) for i in range(3)]
        new = [packed, *parts]
        if masks != (None, None):
            mask = insert_call(pattern_match, AttentionMask(), (parts[0], *masks), path=f"{home}.mask")
            new.append(mask)
            parts = [*parts, mask]
        sdpa = ScaledDotProductAttention(attention.dropout, batch_first=attention.batch_first)
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
