"""The progress bar of long work."""

from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import Any


@contextmanager
def progress_bar(what: str, batches: Iterable[Any], *, shown: bool) -> Iterator[Iterable[Any]]:
    """``batches``, with a progress bar on a terminal that goes away at the end; nothing anywhere else."""
    if not shown:
        yield batches
        return
    from rich.console import Console  # here, because it takes longer to import than all of the rest
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not console.is_terminal:  # where rich 13 writes empty lines for a bar that is disabled
        yield batches
        return
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        total = len(batches) if isinstance(batches, Sized) else None
        yield bar.track(batches, total=total)
