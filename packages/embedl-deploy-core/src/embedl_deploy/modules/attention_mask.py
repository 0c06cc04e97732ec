"""Masks under which a query sees no key.

A softmax over scores that are all −∞ is NaN. ``F.scaled_dot_product_attention`` gives 0 there, whatever the type of the
mask, and padded batches have such rows; attention that is computed in steps has to do likewise.
"""

import torch


def open_unseen_rows(mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A mask that leaves every query at least one key, and the queries whose result must then be set to 0.

    Setting the result to 0 after the second product, not the weights before it, lets compilers compute the
    softmax and both products in one kernel. The values of the other rows are those of ``mask``::

        mask, unseen = open_unseen_rows(mask)
        ...  # softmax(scores with mask) @ value
        return attended.masked_fill(unseen, 0.0)

    Args:
        mask: (..., L, S) for L queries and S keys, or what broadcasts to it. Booleans, true where a key is seen, or
            numbers that are added to the scores, −∞ where it is not.

    Returns:
        The mask, of the same shape and dtype, with rows that show no key replaced by rows that show all; and those
        rows as booleans, (..., L, 1).
    """
    if mask.dtype == torch.bool:
        unseen = ~mask.any(dim=-1, keepdim=True)
        return mask | unseen, unseen
    unseen = (mask == float("-inf")).all(dim=-1, keepdim=True)
    return mask.masked_fill(unseen, 0.0), unseen
