"""Training with quantizers on several ranks, as if one process had the batches of all.

DistributedDataParallel and ``fully_shard`` average gradients, and leave two things to the model:

- Batch norm in training uses the statistics of its batch. Here they are those of all ranks' batches:

      μ = Σ x / n,   σ² = Σ (x − μ)² / n,   sums and n over all ranks

  in two passes, because E[x²] − μ² cancels where the mean is large. ``nn.SyncBatchNorm`` needs a GPU, and is no
  ``nn.BatchNorm2d``, so that it would not be folded.
- The gradient of a learned scale is multiplied by 1/√(values · largest number), as LSQ has it (Esser et al. 2020,
  section 2.2). An activation has as many values as its batch is long. So R ranks multiply by another 1/√R, which is
  what one batch of R times the length has.
"""

import math
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from embedl_deploy.errors import QuantizationError
from embedl_deploy.quantize.calibration.calibrate import quantizers_of
from embedl_deploy.quantize.grid.shared_gradient import GradientOfRanks, sum_of_ranks
from embedl_deploy.validation.checked import checked


class _OfAllRanks:
    """Mixed into a batch norm: its statistics in training are those of all ranks' batches."""

    ranks: GradientOfRanks

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        """(N, C, ...) to the same."""
        if not self.training:
            y: torch.Tensor = super().forward(x)  # type: ignore[misc]  # of the batch norm that it is mixed into
            return y
        self._check_input_dim(x)
        other, shape = [d for d in range(x.dim()) if d != 1], (1, -1, *(1,) * (x.dim() - 2))
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        count = x.new_full((1,), x.numel() / x.shape[1], dtype=wide.dtype)
        sums = sum_of_ranks(torch.cat((wide.sum(other), count)), self.ranks.group)
        n = sums[-1].detach()
        mean = sums[:-1] / n
        apart = wide - mean.reshape(shape)
        variance = sum_of_ranks(apart.square().sum(other), self.ranks.group) / n
        self._note(mean.detach(), variance.detach(), n)
        y = apart * torch.rsqrt(variance + self.eps).reshape(shape)
        if self.affine:
            y = y * self.weight.reshape(shape) + self.bias.reshape(shape)
        return y.to(x.dtype)

    @torch.no_grad()
    def _note(self: Any, mean: torch.Tensor, variance: torch.Tensor, n: torch.Tensor) -> None:
        """Move the running statistics, as ``nn.BatchNorm2d`` does; the variance is that without bias."""
        if not self.track_running_stats or self.running_mean is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean), share)
        self.running_var.lerp_((variance * n / (n - 1)).to(self.running_var), share)


class _BatchNorm1d(_OfAllRanks, nn.BatchNorm1d):
    """``nn.BatchNorm1d`` over the batches of all ranks."""


class _BatchNorm2d(_OfAllRanks, nn.BatchNorm2d):
    """``nn.BatchNorm2d`` over the batches of all ranks."""


class _BatchNorm3d(_OfAllRanks, nn.BatchNorm3d):
    """``nn.BatchNorm3d`` over the batches of all ranks."""


_KINDS: dict[type[nn.Module], type[nn.Module]] = {
    nn.BatchNorm1d: _BatchNorm1d,
    nn.BatchNorm2d: _BatchNorm2d,
    nn.BatchNorm3d: _BatchNorm3d,
}


@checked
def synchronize(model: nn.Module, process_group: dist.ProcessGroup) -> set[nn.Parameter]:
    """Make a calibrated model train on several ranks as on one with the batches of all.

    Call it after :func:`quantize` and before the model is wrapped. All ranks have batches of one size, and losses that
    are means over them. Paths and names of tensors stay, and so do recipes and states. Nothing changes in evaluation
    mode, or in what :func:`freeze` makes of the model.

    Args:
        model: With quantizers that have scales; changed in place.
        process_group: Of torch.distributed, whose ranks train the model.

    Returns:
        The learned scales with one number, whose gradients are averaged here. ``fully_shard`` shards no such
        parameters: pass them to it as ``ignored_params``.

    Raises:
        QuantizationError: A tensor is not calibrated.
    """
    quantizers = quantizers_of(model).values()
    missing = [quantizer.name for quantizer in quantizers if not quantizer.calibrated]
    if missing:
        raise QuantizationError(
            f"{len(missing)} tensor(s) are not calibrated: {', '.join(missing[:5])}. Run calibrate(model, data) first, "
            "which creates the scales.",
            tensor=missing[0],
        )
    size = dist.get_world_size(process_group)
    for module in model.modules():
        kind = _KINDS.get(type(module))
        if kind is not None:
            module.__class__ = kind
            module.ranks = GradientOfRanks(process_group, 1.0)  # type: ignore[assignment]  # no part of the model
    alone = set()
    for quantizer in quantizers:
        if isinstance(quantizer.scale, nn.Parameter):
            factor = 1.0 if quantizer.is_weight else 1 / math.sqrt(size)
            single = quantizer.scale.dim() == 0
            quantizer.gradient = GradientOfRanks(process_group, factor, averaged=single)
            if single:
                alone.add(quantizer.scale)
                _copy_from_first(quantizer.scale, process_group)
    return alone


def _copy_from_first(parameter: nn.Parameter, group: dist.ProcessGroup) -> None:
    """Give all ranks the first one's value: nobody does where a wrapper leaves a parameter out."""
    dist.broadcast(parameter.data, dist.get_global_rank(group, 0), group=group)
