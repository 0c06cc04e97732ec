"""``F.scaled_dot_product_attention`` as it is exported: what torch computes, where the exporter's translation differs.

To a query that sees no key torch gives 0; its exporter gives the mean of all values (a boolean mask) or NaN (a mask of
numbers), and refuses other ranks than four. Attention without a mask, of rank four, is exported as it stands.
"""

from typing import Any

import torch
from torch.nn import functional as F

from embedl_deploy.modules import open_unseen_rows


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    *settings: Any,
    **named: Any,
) -> torch.Tensor:
    """As torch's function: (..., L, E), (..., S, E), (..., S, Ev), and a mask for (..., L, S), to (..., L, Ev)."""
    given = [query, key, value]
    ranks = {tensor.dim() for tensor in given}
    if ranks != {4}:
        leading: torch.Size = torch.broadcast_shapes(*(tensor.shape[:-3] for tensor in given))  # type: ignore[no-untyped-call]  # torch has none
        mask = None if attn_mask is None else _of_rank_four(attn_mask, leading)
        attended = attention(*(_of_rank_four(tensor, leading) for tensor in given), mask, *settings, **named)
        return attended.reshape((*leading, *attended.shape[1:])[-max(ranks) :])
    if attn_mask is None:
        return F.scaled_dot_product_attention(query, key, value, None, *settings, **named)
    mask, unseen = open_unseen_rows(attn_mask)
    return F.scaled_dot_product_attention(query, key, value, mask, *settings, **named).masked_fill(unseen, 0.0)


def _of_rank_four(tensor: torch.Tensor, leading: torch.Size) -> torch.Tensor:
    """(..., H, M, N), or with fewer axes, to (product of leading, H, M, N)."""
    heads = tensor.reshape((1,) * (3 - tensor.dim()) + tensor.shape)
    return heads.expand(1, *leading, *heads.shape[-3:]).flatten(0, -4)
