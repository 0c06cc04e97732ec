"""The data for a comparison: a model with inputs, and the file exported from it."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from embedl_deploy.export.reference import Reference
from embedl_deploy.graph.edit import deep_copy
from embedl_deploy.graph.inputs import tensors_in


@dataclass(frozen=True)
class Run:
    """A model and what it is run on.

    Attributes:
        model: The model.
        args: Its inputs.
        kwargs: Its keyword inputs.
        floats: What to run it in.
    """

    model: nn.Module
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    floats: AbstractContextManager[Any] = field(default_factory=nullcontext)

    def tensors(self) -> list[torch.Tensor]:
        """Its inputs, as a file has them."""
        return tensors_in(self.args, self.kwargs)

    def on_cpu(self) -> "Run":
        """The same on the CPU: itself if it is there, else a copy.

        For a GPU torch takes operators apart into others (``_fused_rms_norm``), which a file has not.
        """
        tensors = [*self.model.parameters(), *self.model.buffers(), *self.tensors()]
        if all(tensor.device.type == "cpu" for tensor in tensors):
            return self
        inputs = pytree.tree_map_only(torch.Tensor, torch.Tensor.cpu, (self.args, self.kwargs))
        return replace(self, model=deep_copy(self.model).cpu(), args=inputs[0], kwargs=inputs[1])


@dataclass(frozen=True)
class File:
    """A file that is compared.

    Attributes:
        path: Where it is.
        names: Its outputs.
        dtype: Its floating-point type.
        tolerance: The largest difference that is accepted, relative to the largest output.
    """

    path: Path
    names: Sequence[str]
    dtype: torch.dtype
    tolerance: float

    def reference(self, run: Run, *, rounding: bool) -> Reference:
        """What a model gives, to compare the file with.

        Args:
            run: The model.
            rounding: Also accept what rounding does to it.
        """
        return Reference(run.model, run.args, run.kwargs, self.names, self.dtype, self.tolerance, rounding=rounding)
