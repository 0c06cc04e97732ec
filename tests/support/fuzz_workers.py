"""What workers of the fuzzer do in tests: some crash, some hang. Imports little: each is a process."""

import os
import time

from fuzz.outcome import HELD, Outcome


def crash_or_hang(seed: int, only: tuple[str, ...]) -> list[Outcome]:
    """1 crashes, 2 hangs."""
    if seed == 1:
        os._exit(3)
    if seed == 2:
        time.sleep(600)
    return [Outcome("law", HELD)]
