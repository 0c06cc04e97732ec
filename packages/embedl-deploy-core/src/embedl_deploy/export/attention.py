"""``F.scaled_dot_product_attention`` as it is exported: what torch computes, where the exporter's translation differs.

To a query that sees no key torch gives 0; its exporter gives the mean of all values (a boolean mask) or NaN (a mask of
numbers), and refuses other ranks than four.

Where the operator set has no ``Attention``, the exporter writes softmax(√f·q·(√f·k)ᵀ)·v, with keys that are transposed
between two reshapes. Compilers merge that badly: one takes two kernels more per layer, which read and write the keys
and do nothing else. So it is written out here as softmax(f·q·kᵀ)·v, the form that compilers' documentation asks for
(docs/attention_forms.md has the figures).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

from embedl_deploy.modules import open_unseen_rows


def attention(*inputs: Any, **settings: Any) -> torch.Tensor:
    """As torch's function: (..., L, E), (..., S, E), (..., S, Ev), and a mask for (..., L, S), to (..., L, Ev)."""
    return _attention(F.scaled_dot_product_attention, *inputs, **settings)


def attention_in_steps(*inputs: Any, **settings: Any) -> torch.Tensor:
    """The same with two products and a softmax."""
    return _attention(_in_steps, *inputs, **settings)


def _attention(
    compute: Callable[..., torch.Tensor],
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    *settings: Any,
    **named: Any,
) -> torch.Tensor:
    given = [query, key, value]
    ranks = {tensor.dim() for tensor in given}
    if ranks != {4}:
        leading: torch.Size = torch.broadcast_shapes(*(tensor.shape[:-3] for tensor in given))  # type: ignore[no-untyped-call]  # torch has none
        mask = None if attn_mask is None else _of_rank_four(attn_mask, leading)
        attended = _attention(compute, *(_of_rank_four(tensor, leading) for tensor in given), mask, *settings, **named)
        return attended.reshape((*leading, *attended.shape[1:])[-max(ranks) :])
    if attn_mask is None:
        return compute(query, key, value, None, *settings, **named)
    mask, unseen = open_unseen_rows(attn_mask)
    return compute(query, key, value, mask, *settings, **named).masked_fill(unseen, 0.0)


def _of_rank_four(tensor: torch.Tensor, leading: torch.Size) -> torch.Tensor:
    """(..., H, M, N), or with fewer axes, to (product of leading, H, M, N)."""
    heads = tensor.reshape((1,) * (3 - tensor.dim()) + tensor.shape)
    return heads.expand(1, *leading, *heads.shape[-3:]).flatten(0, -4)


def _in_steps(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    if enable_gqa:
        key, value = (_spread(shared, query) for shared in (key, value))
    if is_causal:
        mask = query.new_ones(query.shape[-2], key.shape[-2], dtype=torch.bool).tril()
    scaled = query * (query.shape[-1] ** -0.5 if scale is None else scale)
    scores = scaled @ key.transpose(-2, -1)
    if mask is not None and mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=query.dtype).masked_fill(~mask, float("-inf"))
    weights = torch.softmax(scores if mask is None else scores + mask, dim=-1)
    return F.dropout(weights, dropout_p) @ value if dropout_p else weights @ value


def _spread(shared: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """Keys or values (B, h, S, D) as (B, H, S, D), each for H/h heads of queries in a row."""
    return shared.repeat_interleave(query.shape[-3] // shared.shape[-3], dim=-3)
