"""Multi-head attention in parts that compilers can fuse and that can be quantized one by one.

softmax(q·kᵀ/√D)·v, Vaswani et al. 2017, equation 1; 0 where a query sees no key, as torch has it.
Axes: B batch, S sequence, E embedding, H heads, D = E/H.
"""

import torch
import torch.nn.functional as F

from embedl_deploy.modules.attention import ScaledDotProductAttention
from embedl_deploy.modules.attention_mask import open_unseen_rows
from embedl_deploy.modules.base import FusedModule
from embedl_deploy.modules.projections import QKV, MHAInProjection
from embedl_deploy.modules.slots import QuantStub, WeightFakeQuantize
from embedl_deploy.validation.checked import checked


class FusedMHAInProjection(FusedModule):
    """``MHAInProjection``. Only the query is quantized; keys and values are projected from it."""

    inputs_to_quantize = frozenset({0})
    makes_new_tensor = True

    @checked
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

    @checked
    def __init__(self, attention: ScaledDotProductAttention) -> None:
        super().__init__()
        self.attention = attention
        self.query_quant = QuantStub()
        self.softmax_quant = QuantStub(amax=1.0)
        self.input_quant_stubs = {**self.input_quant_stubs, 0: self.query_quant}

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        mask: torch.Tensor | None = None,
        hidden: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """As :meth:`ScaledDotProductAttention.forward`."""
        if not self.softmax_quant.enabled and not self.query_quant.enabled:
            return self.attention(query, key, value, mask, hidden)  # type: ignore[no-any-return]  # as above
        attention = self.attention
        mask, unseen = (None, None) if mask is None else open_unseen_rows(mask)
        # Scaling the query, not the product, keeps the range of the first product small.
        scaled, key = self.query_quant(attention.scaled(query)), attention.spread(key, query)
        weights = attention.weights(scaled, key, mask, hidden, dtype=value.dtype)
        if unseen is not None and self.softmax_quant.observed:
            weights = weights.masked_fill(unseen, 0.0)  # nothing reads them, so rounding them loses nothing
        weights = F.dropout(self.softmax_quant(weights), attention.dropout, attention.training)
        attended = weights @ attention.spread(value, query)
        return attention.joined(attended if unseen is None else attended.masked_fill(unseen, 0.0))
