"""Merges what the ranks of a process group have seen, and divides the search for grids among them.

Every rank gets what one process would have: merging is exact and depends neither on how the data was split nor on its
order. Each grid is computed by one rank and sent to all others, so they have the same numbers by construction.
"""

from collections.abc import Sequence

from embedl_deploy.distributed.ranks import Ranks
from embedl_deploy.errors import QuantizationConfigError
from embedl_deploy.numerics.tensor_config import CalibrationMethod
from embedl_deploy.quantize.grid.observers import Observer
from embedl_deploy.quantize.grid.scales import Grid


def require_mergeable(observers: Sequence[Observer], ranks: Ranks) -> None:
    """Refuse ranges that several ranks cannot find together.

    Raises:
        QuantizationConfigError: A moving average, which depends on the order of the batches.
    """
    for observer in observers if ranks.size > 1 else []:
        if observer.config.calibration_method is CalibrationMethod.MOVING_AVERAGE:
            raise QuantizationConfigError(
                f"{observer.name} is calibrated by MOVING_AVERAGE, which depends on the order of the batches, and the "
                f"batches of {ranks.size} ranks have no order. Choose MINMAX, PERCENTILE, ENTROPY or MSE, or calibrate "
                "in one process.",
                tensor=observer.name,
            )


def merged(observers: Sequence[Observer], ranks: Ranks) -> list[list[int]]:
    """Let every observer take note of what those of all ranks have seen.

    Args:
        observers: In the same order on every rank; changed.
        ranks: Who has some.

    Returns:
        For each observer, the ranks that have seen its tensor themselves.
    """
    for observer in observers:
        observer.seen.rank = ranks.rank if ranks.size > 1 else None
    given = ranks.gather("merging what was seen", list(observers))
    seen_by = [[rank for rank, theirs in enumerate(given) if theirs[i].batches] for i in range(len(observers))]
    for i, observer in enumerate(observers):
        for rank, theirs in enumerate(given):
            if rank != ranks.rank:
                observer.merge(theirs[i])
    return seen_by


def grids_of(observers: Sequence[Observer], seen_by: Sequence[Sequence[int]], ranks: Ranks) -> list[Grid]:
    """The grid of every observer; each is computed by one rank that has seen the tensor.

    Args:
        observers: Merged.
        seen_by: What :func:`merged` gave.
        ranks: Who computes.
    """
    found = {}
    for i, (observer, able) in enumerate(zip(observers, seen_by, strict=True)):
        if able[i % len(able)] == ranks.rank:
            ranks.check()
            found[i] = observer.grid().to("cpu")
    everything: dict[int, Grid] = {}
    for part in ranks.gather("finding scales", found):
        everything.update(part)
    return [everything[i] for i in range(len(observers))]
