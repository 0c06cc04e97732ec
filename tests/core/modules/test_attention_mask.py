"""Masks under which a query sees no key."""

import math

import pytest
import torch
from torch.nn import functional as F

from embedl_deploy.modules import open_unseen_rows
from support.nets import random_input

Q, K, V = (random_input(2, 3, n, 4) for n in (5, 7, 7))
#: (B, 1, L, S): the third query of the first batch sees nothing, the others something.
SEEN = (random_input(2, 1, 5, 7) > 0) | torch.eye(5, 7, dtype=torch.bool)
SEEN[0, 0, 2] = False
NUMBERS = random_input(2, 1, 5, 7, seed=5).masked_fill(~SEEN, -math.inf)
MASKS = {
    "booleans": SEEN,
    "numbers": NUMBERS,
    "one row for all queries": SEEN[:, :, 2:3],
    "no batch": SEEN[0, 0],
    "only the lowest numbers": torch.zeros(5, 7).masked_fill(~SEEN[0, 0], torch.finfo(torch.float32).min),
    "NaN": NUMBERS.masked_fill(~SEEN, math.nan),
    "no keys": torch.ones(5, 0, dtype=torch.bool),
}


def in_steps(mask: torch.Tensor) -> torch.Tensor:
    """Attention as one takes it apart."""
    mask, unseen = open_unseen_rows(mask)
    keys = mask.shape[-1]
    scores = Q @ K[..., :keys, :].transpose(-2, -1) / math.sqrt(4)
    scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
    return (scores.softmax(-1) @ V[..., :keys, :]).masked_fill(unseen, 0.0)


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_attention_in_steps_is_that_of_torch(mask: torch.Tensor) -> None:
    keys = mask.shape[-1]
    expected = F.scaled_dot_product_attention(Q, K[..., :keys, :], V[..., :keys, :], mask)
    torch.testing.assert_close(in_steps(mask), expected, equal_nan=True)


def test_rows_with_keys_are_kept_and_rows_without_show_all() -> None:
    for mask, shown in ((SEEN, True), (NUMBERS, 0.0)):
        opened, unseen = open_unseen_rows(mask)
        assert (opened.shape, opened.dtype, unseen.shape) == (mask.shape, mask.dtype, (2, 1, 5, 1))
        assert unseen.flatten().nonzero().flatten().tolist() == [2]
        assert (opened[0, 0, 2] == shown).all()
        assert torch.equal(opened.masked_fill(unseen, 0), mask.masked_fill(unseen, 0))
