"""F.scaled_dot_product_attention(q, k, v)  becomes  ScaledDotProductAttention.

Vision transformers of today, and whatever torch.export has captured, call the function; as a module it can be fused
and quantized like the attention of ``nn.MultiheadAttention``.

Declined: dropout, which the function applies in evaluation mode too; settings that are computed on the way.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from embedl_deploy.modules.attention import ScaledDotProductAttention
from embedl_deploy.patterns.examples import Example
from embedl_deploy.patterns.matches import PatternMatch
from embedl_deploy.patterns.pattern import Pattern
from embedl_deploy.patterns.replacement import insert_call, replace_match

#: The parameters of the function, in order, which Python cannot read from it.
_DEFAULTS: dict[str, Any] = {
    "query": None,
    "key": None,
    "value": None,
    "attn_mask": None,
    "dropout_p": 0.0,
    "is_causal": False,
    "scale": None,
    "enable_gqa": False,
}


def _arguments(node: fx.Node) -> dict[str, Any]:
    return {**_DEFAULTS, **dict(zip(_DEFAULTS, node.args, strict=False)), **node.kwargs}


class _Attending(nn.Module):
    """A function of queries, keys and values, for examples."""

    def __init__(self, function: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Three of (B, H, S, D)."""
        return self.function(q, k, v)


def _heads() -> tuple[torch.Tensor, ...]:
    """Queries, keys and values (B, H, S, D), for examples."""
    return tuple(torch.randn(3, 2, 2, 5, 4))


class ConvertDotProductAttentionPattern(Pattern):
    """Call a module in place of the function."""

    tree = (F.scaled_dot_product_attention,)
    is_conversion = True

    def examples(self) -> list[Example]:
        """Where it matches."""
        attend = F.scaled_dot_product_attention
        return [
            Example(_Attending(attend), _heads()),
            Example(_Attending(lambda q, k, v: attend(q, k, v, is_causal=True)), _heads(), "causal"),
            Example(_Attending(lambda q, k, v: attend(q, k, v, scale=0.3)), _heads(), "a factor of its own"),
            Example(
                _Attending(lambda q, k, v: attend(q, k[:, :1], v[:, :1], enable_gqa=True)),
                _heads(),
                "two heads of queries for one of keys",
            ),
        ]

    def near_misses(self) -> list[Example]:
        """Where it does not."""
        attend = F.scaled_dot_product_attention
        return [
            Example(_Attending(lambda q, k, v: attend(q, k, v, dropout_p=0.1)), _heads(), "it drops in every mode"),
        ]

    def check(self, match: PatternMatch) -> str | None:
        """Take what does not depend on the mode, nor on values."""
        call = _arguments(match.tree_match.last)
        for name in ("dropout_p", "is_causal", "scale", "enable_gqa"):
            if isinstance(call[name], fx.Node):
                return f"{name} is computed on the way"
        if call["dropout_p"] > 0:
            return f"it drops {call['dropout_p']:.0%} of the attention weights in evaluation mode too"
        return None

    def replace(self, pattern_match: PatternMatch) -> list[fx.Node]:
        """Put the module there."""
        call = _arguments(pattern_match.tree_match.last)
        settings = {"is_causal": call["is_causal"], "scale": call["scale"], "grouped": call["enable_gqa"]}
        attention = ScaledDotProductAttention(joins_heads=False, **settings)
        inputs = [call["query"], call["key"], call["value"]]
        mask = [] if call["attn_mask"] is None else [call["attn_mask"]]
        attended = insert_call(pattern_match, attention, [*inputs, *mask])
        replace_match(pattern_match, attended)
        return [attended]
