"""A table of embeddings, whose rows a hardware may keep as integers."""

import torch
import torch.nn.functional as F
from torch import nn

from embedl_deploy.errors import InputError
from embedl_deploy.modules.base import FusedModule
from embedl_deploy.modules.slots import WeightFakeQuantize
from embedl_deploy.validation.checked import checked


class FusedEmbedding(FusedModule):
    """An ``Embedding``. It computes nothing: quantizing its table saves memory, a quarter of it is left in INT8.

    Args:
        embedding: Without ``max_norm``, which changes the table whenever it is read.

    Attributes:
        embedding: The table.
        weight_fake_quant: Place for the quantizer of the table, whose channels are its rows.

    Raises:
        InputError: The embedding has a ``max_norm``, or a table of other numbers than real floating-point ones.
    """

    @checked
    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        reason = self.why_not(embedding)
        if reason is not None:
            raise InputError(f"FusedEmbedding: {embedding}: {reason}; leave other embeddings as they are.")
        self.embedding = embedding
        self.weight_fake_quant = WeightFakeQuantize()

    @staticmethod
    @checked
    def why_not(embedding: nn.Embedding) -> str | None:
        """Why an embedding has no table that can be kept; ``None`` if it has. For the ``check`` of a pattern."""
        if not embedding.weight.is_floating_point():
            return f"its table is in {embedding.weight.dtype}; expected a real floating-point type"
        if embedding.max_norm is not None:
            return f"it changes its table when it is called, by max_norm={embedding.max_norm}; expected one without"
        return None

    def forward(self, indices: torch.Tensor) -> torch.Tensor:
        """Integers of any shape (...) to (..., embedding_dim). A quantized table has a dense gradient."""
        table = self.embedding
        if not self.weight_fake_quant.enabled:
            return table(indices)  # type: ignore[no-any-return]  # modules are untyped callables
        weight = self.weight_fake_quant(table.weight)
        return F.embedding(indices, weight, table.padding_idx, scale_grad_by_freq=table.scale_grad_by_freq)
