"""Records the first inputs that a model is called with, to run it on them again."""

from typing import Any

import torch
from torch import nn

#: One run of the model: its positional and keyword inputs.
Inputs = tuple[tuple[Any, ...], dict[str, Any]]


def samples_in(run: Inputs) -> int:
    """How many samples a run has: rows of its first tensor; one, if that has no rows."""
    args, kwargs = run
    first = next((v for v in (*args, *kwargs.values()) if isinstance(v, torch.Tensor)), None)
    return first.shape[0] if first is not None and first.dim() > 0 else 1


class InputRecorder:
    """Keeps the first inputs that a model is called with, up to a number of samples.

    Args:
        model: The model to watch.
        limit: How many samples (rows of the first tensor) to keep.

    Attributes:
        inputs: Those that are kept.
        keeps: Whether the inputs of the latest call are among them.
    """

    def __init__(self, model: nn.Module, limit: int) -> None:
        self.inputs: list[Inputs] = []
        self.room = limit
        self.keeps = False
        self._handle = model.register_forward_pre_hook(self._record, with_kwargs=True)

    def _record(self, _model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.keeps = self.room > 0
        if self.keeps:
            self.inputs.append((args, kwargs))
            self.room -= samples_in((args, kwargs))

    @property
    def full(self) -> bool:
        """Whether no more are kept."""
        return self.room <= 0

    def close(self) -> None:
        """Watch no longer."""
        self._handle.remove()
