"""Options of the commands that write an ONNX file, and writing it."""

import functools
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import torch
from torch import fx, nn

from embedl_deploy import OnnxExport, export_onnx
from embedl_deploy.cli import parameters
from embedl_deploy.cli.data import Batches
from embedl_deploy.cli.options import Subject, output_option, with_options

_TYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class OnnxFile:
    """A file to write, and how.

    Attributes:
        path: Where it goes.
        settings: Arguments of :func:`export_onnx`.
        keep_in_float32: Whether what float16 cannot hold is kept in float32.
    """

    path: Path
    settings: dict[str, Any]
    keep_in_float32: bool = False

    def fitted(self, model: fx.GraphModule, subject: Subject, data: Batches | None = None) -> fx.GraphModule:
        """The model with what float16 cannot hold in float32, if that is asked for.

        Args:
            model: The model.
            subject: What it was made of.
            data: What to find that with; by default the example inputs.
        """
        if not self.keep_in_float32:
            return model
        from embedl_deploy.float16 import keep_in_float32

        args = subject.needed_inputs("--keep-in-float32")
        return keep_in_float32(model, data or (lambda called: called(*args, **subject.kwargs)))

    def written(self, model: nn.Module, subject: Subject, **more: Any) -> OnnxExport:
        """Export a model."""
        args = subject.needed_inputs("Exporting")
        return export_onnx(model, args, self.path, kwargs=subject.kwargs or None, **self.settings, **more)


def onnx_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """``-o`` and what ``export_onnx`` can be asked for, as ``file``."""

    @functools.wraps(function)
    def run(*, output_path: Path, dtype: str | None, opset: int | None, dynamic_batch: bool, **rest: Any) -> Any:
        tolerance: Any = None if rest.pop("no_run") else "auto"
        given = rest.pop("tolerance")
        settings = {
            "dtype": None if dtype is None else _TYPES[dtype],
            "opset": opset,
            "dynamic_batch": dynamic_batch,
            "tolerance": tolerance if given is None else given,
        }
        return function(file=OnnxFile(output_path, settings, rest.pop("keep_in_float32")), **rest)

    return with_options(
        run,
        output_option("The ONNX file to write.", ".data", required=True),
        click.option(
            "--dtype", type=click.Choice(list(_TYPES)), help="Floating-point type of the file; by default the model's."
        ),
        click.option(
            "--keep-in-float32", is_flag=True, help="Keep in float32 what float16 cannot hold, found on the data."
        ),
        click.option("--opset", type=int, metavar="N", help="ONNX operator set; by default the oldest that will do."),
        click.option("--dynamic-batch", is_flag=True, help="Leave the first dimension of every input open."),
        click.option(
            "--tolerance",
            type=float,
            callback=parameters.tolerance,
            metavar="X",
            help="Largest difference between ONNX Runtime and PyTorch, relative to the largest output; by default "
            "1e-3, or 5e-2 for quantized and half-precision files, or what rounding does to the model itself.",
        ),
        click.option("--no-run", is_flag=True, help="Do not run the file in ONNX Runtime."),
    )


def float32_data(model: nn.Module) -> dict[str, Any]:
    """What stays in float32, as plain values; empty where that was not asked for."""
    from embedl_deploy.float16.report import REPORT, Float32Report

    report = getattr(model, "meta", {}).get(REPORT)
    return {"float32": report.to_dict()} if isinstance(report, Float32Report) else {}


def float32_text(model: nn.Module) -> str:
    """What stays in float32, in lines that end; empty where that was not asked for."""
    from embedl_deploy.float16.report import REPORT

    report = getattr(model, "meta", {}).get(REPORT)
    return "" if report is None else f"{report}\n"


def export_data(exported: OnnxExport) -> dict[str, Any]:
    """An export as plain values; an infinite ratio as ``None``."""
    difference = None if exported.difference is None else exported.difference._asdict()
    sqnr = exported.sqnr if exported.sqnr is not None and math.isfinite(exported.sqnr) else None
    return {**asdict(exported), "path": str(exported.path), "difference": difference, "sqnr": sqnr}
