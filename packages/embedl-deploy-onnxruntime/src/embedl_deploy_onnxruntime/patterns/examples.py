"""Inputs for the examples of patterns."""

import torch


def maps() -> tuple[torch.Tensor]:
    """(N, 4, H, W)."""
    return (torch.randn(2, 4, 8, 8),)


def sequences(width: int = 8) -> tuple[torch.Tensor]:
    """(B, ``width``, 8)."""
    return (torch.randn(2, width, 8),)
