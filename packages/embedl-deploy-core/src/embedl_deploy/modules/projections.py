"""The parts that multi-head attention is made of before and beside the attention itself.

    x ─▶ MHAInProjection ─▶ q, k, v ─▶ ScaledDotProductAttention ─▶ Linear

Axes: B batch, S sequence, E embedding, H heads, D = E/H.
"""

import torch
import torch.nn.functional as F
from torch import nn

from embedl_deploy.modules.base import ConvertedModule
from embedl_deploy.validation.checked import checked

QKV = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


class MHAInProjection(ConvertedModule):
    """One matrix product that gives queries, keys and values, split into heads.

    Args:
        linear: E → 3E, rows ordered queries, keys, values.
        num_heads: H.
        zero_key_bias: Take the keys' bias as zero, as Swin V2's cosine attention does.
        batch_first: Whether a batch of sequences is (B, S, E), or (S, B, E).
    """

    @checked
    def __init__(
        self, linear: nn.Linear, num_heads: int, *, zero_key_bias: bool = False, batch_first: bool = True
    ) -> None:
        super().__init__()
        self.linear = linear
        self.num_heads = num_heads
        self.zero_key_bias = zero_key_bias
        self.batch_first = batch_first

    @checked
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

    @checked
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
