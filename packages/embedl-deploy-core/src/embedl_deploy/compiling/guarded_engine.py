"""A wrapper that checks every answer of a backend's engine."""

from collections.abc import Callable, Sequence
from typing import Any

import torch

from embedl_deploy.backend import LoadedEngine
from embedl_deploy.engine import EngineTensor


class GuardedEngine(LoadedEngine):
    """Asks an engine; what it must not answer is its plugin's fault.

    Args:
        loaded: What a compiler loaded.
        ask: Calls a method of the plugin, whose name it is told.
        require: Told whether an answer is right, the method's name, the answer, and what was expected.
    """

    def __init__(
        self,
        loaded: LoadedEngine,
        ask: Callable[[str, Callable[[], Any]], Any],
        require: Callable[[bool, str, object, str], None],
    ) -> None:
        self._loaded, self._ask, self._require = loaded, ask, require
        for name in ("inputs", "outputs"):
            sides = ask(f"load().{name}", lambda name=name: getattr(loaded, name))  # type: ignore[misc]
            right = isinstance(sides, tuple) and all(isinstance(tensor, EngineTensor) for tensor in sides)
            require(right, f"load().{name}", sides, "a tuple of EngineTensors")
            setattr(self, name, sides)
        threads = ask("load().threads", lambda: loaded.threads)
        right = threads is None or (type(threads) is int and threads > 0)
        require(right, "load().threads", threads, "a positive number or None")
        self.threads = threads

    def run(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """As :meth:`LoadedEngine.run`."""
        found = self._ask("run()", lambda: self._loaded.run(inputs))
        right = isinstance(found, list) and all(isinstance(each, torch.Tensor) for each in found)
        self._require(
            right and len(found) == len(self.outputs), "run()", found, f"a list of {len(self.outputs)} tensors"
        )
        return found  # type: ignore[no-any-return]  # as was just checked

    def time(self, inputs: Sequence[torch.Tensor], runs: int, seconds: float) -> list[float]:
        """As :meth:`LoadedEngine.time`."""
        times = self._ask("time()", lambda: self._loaded.time(inputs, runs, seconds))
        right = isinstance(times, list) and times and all(isinstance(each, float) and each > 0 for each in times)
        self._require(bool(right), "time()", times, "a list with the seconds of each run")
        return times  # type: ignore[no-any-return]  # as was just checked
