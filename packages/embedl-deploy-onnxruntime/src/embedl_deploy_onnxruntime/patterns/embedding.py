"""Tables of embeddings, whose rows the runtime gathers as integers."""

import torch
from torch import nn

from embedl_deploy.modules import FusedEmbedding
from embedl_deploy.patterns import Applied, Example, Pattern, PatternMatch, QDQPoint, resolve_module


class EmbeddingPattern(Pattern):
    """``Embedding``."""

    tree = (nn.Embedding,)
    qdq_points = frozenset({QDQPoint.WEIGHT})
    graft = FusedEmbedding

    def check(self, match: PatternMatch) -> str | None:
        """Take a table that stays as it is."""
        return FusedEmbedding.why_not(resolve_module(match.tree_match.get_node(0), nn.Embedding))

    def examples(self) -> list[Example]:
        """Where it matches."""
        return [
            Example(nn.Sequential(nn.Embedding(16, 8), nn.LayerNorm(8)), _tokens(), "of tokens"),
            Example(nn.Sequential(nn.Embedding(16, 8, padding_idx=0), nn.Linear(8, 4)), _tokens(), "with padding"),
        ]

    def near_misses(self) -> list[Example]:
        """Where it does not."""
        return [
            Example(nn.Sequential(nn.Embedding(16, 8, max_norm=1.0)), _tokens(), "changed when it is called"),
            Example(nn.Sequential(_numbers()), _tokens(), "a table of integers"),
            Example(nn.Sequential(nn.EmbeddingBag(16, 8)), _tokens(), "sums of rows"),
            Example(Applied(lambda ids: nn.functional.one_hot(ids, 16).float()), _tokens(), "no table"),
        ]


def _numbers() -> nn.Embedding:
    return nn.Embedding(16, 8, _weight=torch.arange(128).reshape(16, 8), _freeze=True)


def _tokens() -> tuple[torch.Tensor]:
    """(B, T) integers below 16."""
    return (torch.randint(16, (2, 6)),)
