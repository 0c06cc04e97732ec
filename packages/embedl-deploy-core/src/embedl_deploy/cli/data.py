"""Calibration data from files: arrays, or a folder of images."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.export import ExportedProgram

from embedl_deploy.cli.arrays import read_arrays
from embedl_deploy.cli.inputs import is_unnamed, tensor_of
from embedl_deploy.errors import InputError
from embedl_deploy.verify import run_unchanged

Batch = tuple[torch.Tensor, ...] | dict[str, torch.Tensor]


class Batches(ABC):
    """Samples in batches, as often as they are asked for.

    Attributes:
        path: Where they are from.
        samples: How many there are.
        size: How many make a batch; the last may have fewer.
    """

    path: Path
    samples: int
    size: int

    @abstractmethod
    def batch(self, start: int, stop: int) -> Batch:
        """The samples from ``start`` up to ``stop``, as inputs of the model."""

    def __len__(self) -> int:
        return -(-self.samples // self.size)

    def __iter__(self) -> Iterator[Batch]:
        for start in range(0, self.samples, self.size):
            yield self.batch(start, min(start + self.size, self.samples))

    def check(self, model: nn.Module) -> None:
        """Run the model on the first batch, and on the last if it is smaller.

        Raises:
            InputError: The model does not take it.
        """
        starts = {0, (len(self) - 1) * self.size} if self.samples % self.size else {0}
        for start in sorted(starts):
            batch = self.batch(start, min(start + self.size, self.samples))
            args, kwargs = ((), batch) if isinstance(batch, dict) else (batch, {})
            try:
                run_unchanged(model, args, kwargs)
            except Exception as error:  # the model's own code may raise anything
                shapes = ", ".join(str(tuple(t.shape)) for t in (*args, *kwargs.values()))
                first = (str(error).strip().splitlines() or ["no message"])[0]
                raise InputError(
                    f"The model does not take batches of {shapes} from the calibration data {os.fspath(self.path)!r}: "
                    f"{type(error).__name__}: {first} Pass data of the model's shapes and types, and a --batch-size "
                    "that it takes."
                ) from error


@dataclass
class ArrayBatches(Batches):
    """Slices of arrays along their first dimension.

    Attributes:
        path: Where they are from.
        tensors: An input of the model each, by name.
        samples: Their first dimension.
        size: Samples in a batch.
    """

    path: Path
    tensors: Mapping[str, torch.Tensor]
    samples: int
    size: int

    def batch(self, start: int, stop: int) -> Batch:
        """See :meth:`Batches.batch`; arrays without names go to the inputs in order."""
        parts = {name: tensor[start:stop] for name, tensor in self.tensors.items()}
        return tuple(parts.values()) if is_unnamed(parts) else parts


def array_batches(path: Path, model: nn.Module | ExportedProgram, size: int, most: int | None) -> ArrayBatches:
    """The arrays of an ``.npz`` or ``.npy`` file, whose first dimension counts samples.

    Raises:
        InputError: It is not such a file, or its arrays have different numbers of samples.
    """
    tensors = {name: tensor_of(array, model) for name, array in read_arrays(path).items()}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    counts = {shape[0] if shape else 0 for shape in shapes.values()}
    if len(counts) != 1 or counts == {0}:
        raise InputError(
            f"The arrays in {os.fspath(path)!r} have the shapes {shapes}; expected one first dimension, the number of "
            "samples, and at least one sample."
        )
    samples = counts.pop()
    return ArrayBatches(path, tensors, samples if most is None else min(samples, most), size)
