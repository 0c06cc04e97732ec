"""Pauses the cyclic garbage collector while large graphs are built."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_paused() -> Iterator[None]:
    """Within the block or the decorated function, Python's cyclic garbage collector is paused.

    A transformation makes some hundred objects for every node of the graph, and nearly all of them stay. The collector,
    which starts whenever many have been made, looks at all of them each time and finds nothing.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
