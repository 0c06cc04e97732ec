"""A copy operator whose result compiled training keeps instead of recomputing it."""

import torch


@torch.library.custom_op("embedl_deploy::snapshot", mutates_args=())
def snapshot(x: torch.Tensor) -> torch.Tensor:
    """A copy of ``x``, a buffer that is written to later in the same forward pass.

    The partitioner of ``torch.compile`` computes cheap values again in the backward pass instead of keeping them, also
    those that were read from a running statistic before the batch norm updated it: the gradients are then silently
    wrong (PyTorch 2.13; pytorch/pytorch#197039). An operator that it does not know is kept.
    """
    return x.clone()


@snapshot.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)
