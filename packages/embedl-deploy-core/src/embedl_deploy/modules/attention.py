"""Attention as one module, which a conversion puts into a graph and a backend fuses and quantizes.

softmax(f·q·kᵀ)·v, Vaswani et al. 2017, equation 1, with what networks do to the scores before the softmax.
Axes: B batch, H heads, L queries, S keys, D width of a head, E = H·D embedding.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F

from embedl_deploy.modules.attention_mask import open_unseen_rows
from embedl_deploy.modules.base import ConvertedModule
from embedl_deploy.validation.checked import checked

#: A score that stands for what is hidden may have been the lowest number of a wider type.
_LOWEST = {dtype: torch.finfo(dtype).min for dtype in (torch.float16, torch.bfloat16, torch.float32)}


class ScaledDotProductAttention(ConvertedModule):
    """softmax(hide(cap(f·q·kᵀ) + mask))·v, as a rule with the heads joined again.

    Without ``softcap`` and ``hidden`` it is computed in one piece, by ``F.scaled_dot_product_attention``.

    Args:
        dropout: Probability that an attention weight is dropped in training mode.
        batch_first: Whether a batch of sequences is given back as (B, L, E), or (L, B, E).
        joins_heads: Whether the heads are joined, or given back as they come.
        is_causal: Whether the query at a position sees only the keys up to that position. Not together with a mask.
        scale: f; ``None`` for 1/√D.
        unseen_is_nan: Whether a query to which the mask shows no key gets NaN, as from a softmax over −∞ alone, or 0,
            as from ``F.scaled_dot_product_attention``. Quantized it gets 0, for want of NaN in integers.
        softcap: c of cap(x) = c·tanh(x/c), before the mask (Gemma 2, section 2); ``None`` for none.
        hidden_score: What a score becomes where ``hidden`` is true: a finite number, at which a query that sees no key
            attends to all alike.
        softmax_dtype: The dtype in which scores are masked and the softmax is computed; ``None`` for that of the query.
        grouped: Whether keys and values may have fewer heads than queries, each for as many queries' heads in a row.
    """

    @checked
    def __init__(
        self,
        dropout: float = 0.0,
        *,
        batch_first: bool = True,
        joins_heads: bool = True,
        is_causal: bool = False,
        scale: float | None = None,
        unseen_is_nan: bool = False,
        softcap: float | None = None,
        hidden_score: float = -math.inf,
        softmax_dtype: torch.dtype | None = None,
        grouped: bool = False,
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.batch_first = batch_first
        self.joins_heads = joins_heads
        self.is_causal = is_causal
        self.scale = scale
        self.unseen_is_nan = unseen_is_nan
        self.softcap = softcap
        self.hidden_score = hidden_score
        self.softmax_dtype = softmax_dtype
        self.grouped = grouped

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None = None,
        hidden: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Attend with (..., H, L, D) to (..., H, S, D), weighing (..., H, S, ·).

        Args:
            query: Queries.
            key: Keys. They may be more or fewer than queries.
            value: Values, one for each key. The result is of their dtype.
            mask: Broadcasts with (..., H, L, S). Numbers to add to the scores, or booleans, true where a key is seen.
            hidden: Booleans that broadcast likewise, true where the score is replaced by ``hidden_score``.

        Returns:
            (..., L, H·), or (L, B, H·), or with the heads apart (..., H, L, ·).
        """
        key, value = self.spread(key, query), self.spread(value, query)
        if self._takes_steps(query, value, hidden):
            weights = self.weights(self.scaled(query), key, mask, hidden, dtype=value.dtype)
            return self.joined(F.dropout(weights, self.dropout, self.training) @ value)
        dropout = self.dropout if self.training else 0.0
        settings: dict[str, Any] = {"dropout_p": dropout, "is_causal": self.is_causal, "scale": self.scale}
        attended = F.scaled_dot_product_attention(query, key, value, mask, **settings)
        if mask is not None and self.unseen_is_nan:
            attended = attended.masked_fill(open_unseen_rows(mask)[1], float("nan"))
        return self.joined(attended)

    def _takes_steps(self, query: torch.Tensor, value: torch.Tensor, hidden: torch.Tensor | None) -> bool:
        """Whether the function for the whole does not compute this."""
        if self.softcap is not None or hidden is not None or query.dtype != value.dtype:
            return True
        return self.softmax_dtype is not None and query.dtype != self.softmax_dtype

    def spread(self, shared: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
        """Keys or values (..., h, S, D) as (..., H, S, D), each for H/h heads of queries in a row."""
        if not self.grouped:
            return shared
        times = query.shape[-3] // shared.shape[-3]
        return shared.unsqueeze(-3).expand(*shared.shape[:-2], times, *shared.shape[-2:]).flatten(-4, -3)

    def scaled(self, query: torch.Tensor) -> torch.Tensor:
        """f·q."""
        if self.scale == 1.0:
            return query
        return query * (query.shape[-1] ** -0.5 if self.scale is None else self.scale)

    def weights(
        self,
        scaled: torch.Tensor,
        key: torch.Tensor,
        mask: torch.Tensor | None,
        hidden: torch.Tensor | None = None,
        *,
        dtype: torch.dtype | None = None,
    ) -> torch.Tensor:
        """The attention weights (..., H, L, S) of scaled queries, of ``dtype``, or of theirs.

        A model in float16 may compute them of queries and keys in float32, and weigh float16 values (GPT-J).
        """
        scores = scaled @ key.transpose(-2, -1)
        if self.softcap is not None:
            scores = torch.tanh(scores / self.softcap) * self.softcap
        if self.softmax_dtype is not None:
            scores = scores.to(self.softmax_dtype)
        scores = self.masked(scores, mask)
        if hidden is not None:
            scores = scores.masked_fill(hidden, max(self.hidden_score, _LOWEST.get(scores.dtype, -math.inf)))
        return scores.softmax(dim=-1).to(dtype or scaled.dtype)

    def masked(self, scores: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Scores (..., H, L, S) with the mask."""
        if self.is_causal:
            mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        if mask is None:
            return scores
        return scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask

    def joined(self, x: torch.Tensor) -> torch.Tensor:
        """(..., H, L, D) to (..., L, H·D), or (L, B, H·D), if that is asked for."""
        if not self.joins_heads:
            return x
        joined = join_heads(x)
        return joined.transpose(0, 1) if not self.batch_first and joined.dim() == 3 else joined

    def extra_repr(self) -> str:
        """What differs from the usual."""
        usual: dict[str, Any] = {
            "batch_first": True,
            "joins_heads": True,
            "is_causal": False,
            "scale": None,
            "unseen_is_nan": False,
            "softcap": None,
            "hidden_score": -math.inf,
            "softmax_dtype": None,
            "grouped": False,
        }
        unusual = [f"{name}={getattr(self, name)}" for name, value in usual.items() if getattr(self, name) != value]
        return ", ".join([f"dropout={self.dropout}", *unusual])


def join_heads(x: torch.Tensor) -> torch.Tensor:
    """(..., H, L, D) to (..., L, H·D)."""
    return x.transpose(-3, -2).flatten(-2)
