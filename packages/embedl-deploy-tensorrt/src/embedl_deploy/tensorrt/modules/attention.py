"""Multi-head attention in parts that TensorRT can fuse and that can be quantized one by one.

    x ─▶ MHAInProjection ─▶ q, k, v ─▶ ScaledDotProductAttention ─▶ Linear

softmax(q·kᵀ/√D)·v, Vaswani et al. 2017, equation 1; 0 where a query sees no key, as torch has it.
Axes: B batch, S sequence, E embedding, H heads, D = E/H.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from embedl_deploy.modules import ConvertedModule, FusedModule, QuantStub, WeightFakeQuantize, open_unseen_rows

QKV = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class MHAInProjection(ConvertedModule):
    """One matrix product that gives queries, keys and values, split into heads.

    Args:
        linear: E → 3E, rows ordered queries, keys, values.
        num_heads: H.
        zero_key_bias: Take the keys' bias as zero, as Swin V2's cosine attention does.
        batch_first: Whether a batch of sequences is (B, S, E), or (S, B, E).
    """

    def __init__(
        self, linear: nn.Linear, num_heads: int, *, zero_key_bias: bool = False, batch_first: bool = True
    ) -> None:
        super().__init__()
        self.linear = linear
        self.num_heads = num_heads
        self.zero_key_bias = zero_key_bias
        self.batch_first = batch_first

    def split(self, x: torch.Tensor, weight: torch.Tensor) -> QKV:
        """Project (..., S, E) by ``weight`` and split into three tensors of (..., H, S, D)."""
        bias: torch.Tensor | None = self.linear.bias
        if self.zero_key_bias and bias is not None:
            q, k, v = bias.chunk(3)
            bias = torch.cat((q, torch.zeros_like(k), v))
        return self._heads(F.linear(x, weight, bias))

    def _heads(self, packed: torch.Tensor) -> QKV:
        if not self.batch_first and packed.dim() == 3:
            packed = packed.transpose(0, 1)
        heads = packed.reshape(*packed.shape[:-1], 3, self.num_heads, -1)
        q, k, v = heads.transpose(-4, -2).unbind(-3)
        return q, k, v

    def forward(self, query: torch.Tensor, _key: torch.Tensor | None = None, _value: torch.Tensor | None = None) -> QKV:
        """Self-attention: (..., S, E), or (S, B, E), to three of (..., H, S, D).

        Key and value are the query and are not looked at.
        """
        if self.zero_key_bias:
            return self.split(query, self.linear.weight)
        return self._heads(self.linear(query))

    def extra_repr(self) -> str:
        """The number of heads."""
        return f"num_heads={self.num_heads}" + ("" if self.batch_first else ", batch_first=False")


class SplitHeads(ConvertedModule):
    """The last axis of a projection as heads.

    Args:
        num_heads: H.
        batch_first: Whether a batch of sequences is (B, S, E), or (S, B, E).
    """

    def __init__(self, num_heads: int, *, batch_first: bool = True) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.batch_first = batch_first

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., S, E), or (S, B, E), to (..., H, S, D)."""
        if not self.batch_first and x.dim() == 3:
            x = x.transpose(0, 1)
        return x.reshape(*x.shape[:-1], self.num_heads, -1).transpose(-3, -2)

    def extra_repr(self) -> str:
        """The number of heads."""
        return f"num_heads={self.num_heads}" + ("" if self.batch_first else ", batch_first=False")


class AttentionMask(ConvertedModule):
    """The two masks of ``nn.MultiheadAttention`` as one that is added to the scores."""

    def forward(
        self, query: torch.Tensor, key_padding_mask: torch.Tensor | None, attn_mask: torch.Tensor | None
    ) -> torch.Tensor:
        """A mask to add, of the dtype of ``query``, that broadcasts with (..., H, S, S).

        Args:
            query: (..., H, S, D), for its heads and dtype.
            key_padding_mask: (..., S). Booleans, true where a key is left out, or numbers to add.
            attn_mask: (S, S), or (B·H, S, S) with a mask for each head of each sequence. Likewise.
        """
        mask = query.new_zeros(())
        if key_padding_mask is not None:
            mask = mask + _added(key_padding_mask, query)[..., None, None, :]
        if attn_mask is not None:
            added = _added(attn_mask, query)
            mask = mask + (added.reshape(*query.shape[:-2], *added.shape[1:]) if added.dim() == 3 else added)
        return mask


def _added(mask: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    if mask.dtype == torch.bool:
        return torch.zeros_like(mask, dtype=query.dtype).masked_fill(mask, float("-inf"))
    return mask.to(query.dtype)


class ScaledDotProductAttention(ConvertedModule):
    """softmax(f·q·kᵀ + mask)·v, as a rule with the heads joined again.

    Args:
        dropout: Probability that an attention weight is dropped in training mode.
        batch_first: Whether a batch of sequences is given back as (B, S, E), or (S, B, E).
        joins_heads: Whether the heads are joined, or given back as they come.
        is_causal: Whether the query at a position sees only the keys up to that position. Not together with a mask.
        scale: f; ``None`` for 1/√D.
        unseen_is_nan: Whether a query to which the mask shows no key gets NaN, as from ``nn.MultiheadAttention`` with
            ``need_weights``, or 0, as from ``F.scaled_dot_product_attention``. Quantized it gets 0, for want of NaN in
            integers.
    """

    def __init__(
        self,
        dropout: float = 0.0,
        *,
        batch_first: bool = True,
        joins_heads: bool = True,
        is_causal: bool = False,
        scale: float | None = None,
        unseen_is_nan: bool = False,
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.batch_first = batch_first
        self.joins_heads = joins_heads
        self.is_causal = is_causal
        self.scale = scale
        self.unseen_is_nan = unseen_is_nan

    def forward(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Three of (..., H, S, D), and a mask that broadcasts with (..., H, S, S), to (..., S, E), or (S, B, E).

        Keys and values may be more or fewer than queries. A mask is added, or, of booleans, true where a key is seen.
        """
        dropout = self.dropout if self.training else 0.0
        settings: dict[str, Any] = {"dropout_p": dropout, "is_causal": self.is_causal, "scale": self.scale}
        attended = F.scaled_dot_product_attention(query, key, value, mask, **settings)
        if mask is not None and self.unseen_is_nan:
            attended = attended.masked_fill(open_unseen_rows(mask)[1], float("nan"))
        return self.joined(attended)

    def scaled(self, query: torch.Tensor) -> torch.Tensor:
        """f·q."""
        return query * (query.shape[-1] ** -0.5 if self.scale is None else self.scale)

    def masked(self, scores: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Scores (..., H, S, S) with the mask."""
        if self.is_causal:
            mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        if mask is None:
            return scores
        return scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask

    def joined(self, x: torch.Tensor) -> torch.Tensor:
        """(..., H, S, D) to (..., S, H·D), or (S, B, H·D), if that is asked for."""
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
        }
        unusual = [f"{name}={getattr(self, name)}" for name, value in usual.items() if getattr(self, name) != value]
        return ", ".join([f"dropout={self.dropout}", *unusual])


def join_heads(x: torch.Tensor) -> torch.Tensor:
    """(..., H, S, D) to (..., S, H·D)."""
    return x.transpose(-3, -2).flatten(-2)


class FusedMHAInProjection(FusedModule):
    """``MHAInProjection``. Only the query is quantized; keys and values are projected from it."""

    inputs_to_quantize = frozenset({0})
    makes_new_tensor = True

    def __init__(self, projection: MHAInProjection) -> None:
        super().__init__()
        self.projection = projection
        self.weight_fake_quant = WeightFakeQuantize()

    def forward(self, query: torch.Tensor, _key: torch.Tensor | None = None, _value: torch.Tensor | None = None) -> QKV:
        """(..., S, E), or (S, B, E), to three of (..., H, S, D)."""
        if self.weight_fake_quant.enabled:
            return self.projection.split(query, self.weight_fake_quant(self.projection.linear.weight))
        return self.projection(query)  # type: ignore[no-any-return]  # modules are untyped callables


class FusedScaledDotProductAttention(FusedModule):
    """``ScaledDotProductAttention``.

    Attributes:
        query_quant: Place for the quantizer of the query. It stands inside, because the query is scaled before it is
            quantized: so the quantizer feeds the matrix product.
        softmax_quant: Place for a quantizer of the attention weights, whose range [0, 1] is known beforehand. As long
            as both are empty the attention is computed in one piece.
    """

    inputs_to_quantize = frozenset({0, 1, 2})

    def __init__(self, attention: ScaledDotProductAttention) -> None:
        super().__init__()
        self.attention = attention
        self.query_quant = QuantStub()
        self.softmax_quant = QuantStub(amax=1.0)
        self.input_quant_stubs = {**self.input_quant_stubs, 0: self.query_quant}

    def forward(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Three of (..., H, S, D), and a mask that broadcasts with (..., H, S, S), to (..., S, E), or (S, B, E)."""
        if not self.softmax_quant.enabled and not self.query_quant.enabled:
            return self.attention(query, key, value, mask)  # type: ignore[no-any-return]  # as above
        attention = self.attention
        mask, unseen = (None, None) if mask is None else open_unseen_rows(mask)
        # Scaling the query, not the product, keeps the range of the first product small.
        scores = attention.masked(self.query_quant(attention.scaled(query)) @ key.transpose(-2, -1), mask)
        weights = scores.softmax(dim=-1)
        if unseen is not None and self.softmax_quant.observed:
            weights = weights.masked_fill(unseen, 0.0)  # nothing reads them, so what rounding does to them is no loss
        attended = F.dropout(self.softmax_quant(weights), attention.dropout, attention.training) @ value
        return attention.joined(attended if unseen is None else attended.masked_fill(unseen, 0.0))
