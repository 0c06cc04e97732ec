"""The interface of an engine that was loaded onto the hardware in this machine."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch

from embedl_deploy.engine import EngineTensor


class LoadedEngine(ABC):
    """An engine that can be run: what :meth:`Compiler.load` gives.

    Who calls it has looked at the inputs before: there is one for each of :attr:`inputs`, of its type and of a shape
    that fits, contiguous, on the CPU.

    Attributes:
        inputs: What it reads, in its order: name, shape with −1 for open dimensions, element type.
        outputs: What it writes, in its order.
        threads: Threads that it runs with; ``None`` where the hardware has none to choose.
    """

    inputs: tuple[EngineTensor, ...]
    outputs: tuple[EngineTensor, ...]
    threads: int | None = None

    @abstractmethod
    def run(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Run it once.

        Args:
            inputs: One tensor for each input, in the engine's order.

        Returns:
            The outputs on the CPU, in the engine's order.

        Raises:
            CompileError: It fails.
        """

    @abstractmethod
    def time(self, inputs: Sequence[torch.Tensor], runs: int, seconds: float) -> list[float]:
        """Run it again and again, and time each run.

        Args:
            inputs: As for :meth:`run`; they are moved to the hardware once.
            runs: At least so many runs.
            seconds: Go on until so much time has passed.

        Returns:
            The time of each run, in seconds, without what moves inputs and outputs to and from the hardware.

        Raises:
            CompileError: It fails.
        """
