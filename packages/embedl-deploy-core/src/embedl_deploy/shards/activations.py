"""The values that flow from one block to the next, in files: one for each batch and each kind of value."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, overload

import torch

from embedl_deploy.errors import InputError
from embedl_deploy.files import atomic_write
from embedl_deploy.quantize.calibration.recorded_inputs import Inputs

#: What calibration runs on, in float: through quantizers that observe, channels scaled. Of all batches.
CALIBRATED = "calibrated"
#: Values of the model as it was, in float. Of all batches, for smoothing.
FLOAT = "float"
#: Values of the model as it was, through quantizers that observe. Of the first samples, for smoothing.
OBSERVED = "observed"
#: Values of the quantized model in which no channels are scaled. Of the samples to judge by, for smoothing.
TRIED = "tried"
#: Values of the model with channels scaled, in float. Of the first samples, for corrections.
EXACT = "exact"
#: Values of the quantized model. Of the first samples, for corrections.
QUANTIZED = "quantized"


class Batches(Sequence[tuple[Any, ...]]):
    """Values of one kind, batch by batch; read from files when they are asked for.

    Args:
        folder: Where they are.
        numbers: Which batches.
    """

    def __init__(self, folder: Path, numbers: Sequence[int]) -> None:
        self._folder, self._numbers = folder, list(numbers)

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> tuple[Any, ...]: ...

    @overload
    def __getitem__(self, index: slice) -> "Batches": ...

    def __getitem__(self, index: int | slice) -> "tuple[Any, ...] | Batches":
        """One batch, read now; or a part of the batches, not read."""
        if isinstance(index, slice):
            return Batches(self._folder, self._numbers[index])
        file = self._folder / f"{self._numbers[index]}.pt"
        try:
            values: tuple[Any, ...] = torch.load(file, weights_only=True)
        except FileNotFoundError:
            raise InputError(
                f"{os.fspath(file)!r} is not there: an interrupted run left it. Delete the folder to start over."
            ) from None
        return values

    def runs(self) -> list[Inputs]:
        """All of them, in memory, as runs of a model."""
        return [(values, {}) for values in self]


class Activations:
    """The values that flow into one block.

    Args:
        folder: Where they are, or will be.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def of(self, kind: str, numbers: Sequence[int]) -> Batches:
        """Values of a kind, of some batches."""
        return Batches(self.folder / kind, numbers)

    def write(self, kind: str, number: int, values: tuple[Any, ...]) -> None:
        """Write the values of one batch.

        Raises:
            FileWriteError: The disk is full.
        """
        with atomic_write(self.folder / kind / f"{number}.pt") as file:
            torch.save(values, file)

    def remove(self) -> None:
        """Delete them."""
        shutil.rmtree(self.folder, ignore_errors=True)
