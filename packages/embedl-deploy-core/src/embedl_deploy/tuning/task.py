"""What all candidates of a search have in common."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn

from embedl_deploy.backend import Backend
from embedl_deploy.export import OnnxExport, export_onnx
from embedl_deploy.export.finishing import finish_for, unfinished
from embedl_deploy.float16 import float32_report, keep_in_float32
from embedl_deploy.numerics.config import QuantConfig
from embedl_deploy.quantize.calibration.data import CalibrationData
from embedl_deploy.tuning.accuracy import Call
from embedl_deploy.tuning.builds import Builds

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True)
class Task:
    """A search's data, settings and places.

    Attributes:
        model: The transformed model in float.
        backend: The backend whose compiler judges.
        float_type: The type of what is not quantized.
        data: Calibration data.
        calls: What a model is called with to measure its accuracy, and to export it.
        config: The complete configuration, with the policy that was given.
        evaluate: The user's measure of a model, if there is one.
        builds: Builds engines.
        found: What the state file holds.
        folder: For exported files.
        progress: Whether to show progress bars.
    """

    model: fx.GraphModule
    backend: Backend
    float_type: torch.dtype
    data: CalibrationData
    calls: Sequence[Call]
    config: QuantConfig
    evaluate: Callable[[nn.Module], float] | None
    builds: Builds
    found: dict[str, Any]
    folder: Path
    progress: bool

    @cached_property
    def fits_float16(self) -> bool:
        """Whether float16 holds all values of the model in float, which is then not asked of its candidates again."""
        return not float32_report(self._held(self.model)).nodes

    def export(self, model: fx.GraphModule, path: Path) -> OnnxExport:
        """Export a model in float; in float16 with float32 where that cannot hold its values.

        It is not finished by the backend: candidates are made of it, which are.
        """
        args, kwargs = self.calls[0]
        with torch.no_grad(), unfinished():
            fits = self.float_type is not torch.float16 or self.fits_float16
            held = model if fits else self._held(model)
            return export_onnx(held, args, path, kwargs=kwargs or None, dtype=self.float_type, tolerance=None)

    @property
    def float_name(self) -> str:
        """The type of what is not quantized, as trials are named."""
        return str(self.float_type).removeprefix("torch.")

    def finished(self, candidate: "ir.Model") -> "ir.Model":
        """A candidate's file, with the backend's last changes."""
        finish_for(candidate, self.backend)
        return candidate

    def _held(self, model: fx.GraphModule) -> fx.GraphModule:
        args, kwargs = self.calls[0]  # watched operator by operator, which takes as long as many calls
        return keep_in_float32(model, lambda watched: watched(*args, **kwargs), progress=False)
