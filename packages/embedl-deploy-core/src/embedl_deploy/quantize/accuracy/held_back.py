"""Holds back a quarter of the recorded inputs: corrections learn from the others, and are judged on these.

A correction always looks good on what it was fitted to. Ranges still see all data.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from embedl_deploy.distributed.ranks import ALONE, Ranks
from embedl_deploy.graph.out_of_memory import is_out_of_memory
from embedl_deploy.modules import QuantStub
from embedl_deploy.quantize.calibration.calibrate import evaluation_mode
from embedl_deploy.quantize.calibration.paired_run import emptied
from embedl_deploy.quantize.calibration.recorded_inputs import Inputs, samples_in
from embedl_deploy.verify import run_unchanged
from embedl_deploy.verify.difference import output_tensors

#: How many samples corrections learn from and are judged by.
SAMPLES = 80
#: From so many runs on, whole runs are held back; fewer are split, so that not too much is lost to learning.
_RUNS = 4
#: How far the outputs for a part of a batch may be from those for all of it, relative to their norm: the kernels for
#: another batch size may add up in another order.
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class HeldBack:
    """Recorded runs, and which of them corrections learn from.

    Attributes:
        learned: Runs to learn from.
        judged: Runs to judge by; the same list where none could be held back.
        ranks: Who has the same runs, and computes the same from them.
        rounded: What the quantized model is given in their place; ``None`` where that is the same, which it is not for
            a part of a model, behind others that are quantized.
    """

    learned: list[Inputs]
    judged: list[Inputs]
    ranks: Ranks = ALONE
    rounded: "HeldBack | None" = None

    @property
    def all(self) -> list[Inputs]:
        """The runs of both kinds."""
        return self.learned if self.judged is self.learned else [*self.learned, *self.judged]

    def run_learned(self, model: nn.Module) -> None:
        """Run a model on what is learned from."""
        for args, kwargs in self.learned:
            model(*args, **kwargs)

    def run_all(self, model: nn.Module) -> None:
        """Run a model on all that was recorded."""
        for args, kwargs in self.all:
            model(*args, **kwargs)

    def __str__(self) -> str:
        count = sum(map(samples_in, self.judged))
        samples = f"{count} sample{'' if count == 1 else 's'}"
        if self.judged is self.learned:
            return f"the {samples} that it learned from, because none could be held back"
        return f"{samples} held back"


def hold_back(model: fx.GraphModule, inputs: Sequence[Inputs], ranks: Ranks = ALONE, *, split: bool = True) -> HeldBack:
    """Hold back a quarter of recorded runs, rounded up; of fewer than four, a quarter of the samples in each.

    Those held back are spread evenly. A run is split along dimension 0 only if the model, in float, gives the parts
    the outputs that it gives the whole. Where no run can be split, the last of two or three is held back; a single one
    is learned from and judged by.

    Args:
        model: Calibrated. It runs if there are fewer than four runs, and is as it was afterwards.
        inputs: Runs of it.
        ranks: Who has the same runs.
        split: Whether runs may be split, of which the whole model tells.
    """
    runs = list(inputs)
    parts = [_split(model, run) for run in runs] if split and len(runs) < _RUNS else []
    if any(parts):
        learned = [run if part is None else part[0] for run, part in zip(runs, parts, strict=True)]
        return HeldBack(learned, [part[1] for part in parts if part is not None], ranks)
    return whole_runs_held_back(runs, ranks)


def whole_runs_held_back(runs: list[Inputs], ranks: Ranks = ALONE) -> HeldBack:
    """A quarter of the runs, rounded up, is held back; a single one is learned from and judged by."""
    if len(runs) < 2:
        return HeldBack(runs, runs, ranks)
    chosen = _quarter(len(runs))
    return HeldBack([run for i, run in enumerate(runs) if i not in chosen], [runs[i] for i in chosen], ranks)


def _quarter(count: int) -> list[int]:
    """A quarter of the numbers below ``count``, rounded up, spread evenly: of 8, 3 and 7; of 6, 2 and 5."""
    chosen = -(-count // 4)
    return [(i + 1) * count // chosen - 1 for i in range(chosen)]


def _split(model: fx.GraphModule, run: Inputs) -> tuple[Inputs, Inputs] | None:
    """The samples of a run to learn from, and those to judge by; ``None`` if it cannot be split."""
    count = samples_in(run)
    if count < 2:
        return None
    held = _quarter(count)
    rows = ([i for i in range(count) if i not in held], held)
    parts = [_rows_of(run, part, count) for part in rows]
    with evaluation_mode(model), emptied(*(stub for stub in model.modules() if isinstance(stub, QuantStub))):
        whole = run_unchanged(model, *run)
        for part, chosen in zip(parts, rows, strict=True):
            try:
                given = run_unchanged(model, *part)
            except Exception as error:  # a model may raise anything at a batch size that it is not made for
                if is_out_of_memory(error):
                    raise
                return None
            if not _same(_rows_of(output_tensors(whole), chosen, count), output_tensors(given)):
                return None
    return parts[0], parts[1]


def _rows_of(values: Any, rows: list[int], count: int) -> Any:
    """Values with some of the samples, where a tensor has ``count`` of them; other tensors as they are."""

    def chosen(tensor: torch.Tensor) -> torch.Tensor:
        return tensor[rows] if tensor.dim() > 0 and tensor.shape[0] == count else tensor

    return pytree.tree_map_only(torch.Tensor, chosen, values)


def _same(wanted: list[torch.Tensor], given: list[torch.Tensor]) -> bool:
    """Whether two lists of tensors, one at least, are the same but for the order of sums."""
    if not wanted or [x.shape for x in wanted] != [y.shape for y in given]:
        return False
    for x, y in zip(wanted, given, strict=True):
        wide = torch.complex128 if x.is_complex() else torch.float64
        x, y = x.to(wide), y.to(wide)
        apart = torch.where((x == y) | (x.isnan() & y.isnan()), 0.0, y - x)
        size = torch.where(x.isfinite(), x, 0.0).abs().square().sum().sqrt()
        if not bool(apart.abs().square().sum().sqrt() <= _TOLERANCE * size):
            return False
    return True
