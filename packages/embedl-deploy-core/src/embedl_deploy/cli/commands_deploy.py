"""The command that goes all the way: from a model and data to an engine, and everything that repeats it."""

import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import torch

from embedl_deploy import check, export_onnx
from embedl_deploy import compile as compile_onnx
from embedl_deploy.backend import get_backend
from embedl_deploy.cli.data import Batches
from embedl_deploy.cli.options import Rewrites, Subject, rewrite_options, subject_options
from embedl_deploy.cli.output import Output, json_option
from embedl_deploy.cli.paths import FileCommand, OutputFolder
from embedl_deploy.cli.quantization_options import Quantization, data_options, quantization_options, transform_for_data
from embedl_deploy.files import write_text
from embedl_deploy.pipeline import BACKEND

#: What is written into the folder; the compiler may give the engine another ending.
_FILES = (
    *("plan.json", "decisions.json", "tune_state.json", "recipe.json", "model.onnx", "model.onnx.data"),
    *("model.engine", "model.engine.json", "run.html", "command.txt"),
)


@click.command("deploy", cls=FileCommand)
@subject_options
@data_options
@rewrite_options
@quantization_options
@click.option("--target", metavar="NAME", help="What to compile for, in the backend's words, such as an architecture.")
@click.option("--compiler", metavar="NAME", help="By default the first that is installed; see `backends -v`.")
@click.option("--tune/--no-tune", default=True, help="Search where to quantize, or quantize as the options say.")
@click.option("--objective", default="activation_bytes", metavar="NAME", help="As for `tune`.")
@click.option("--keep", type=float, metavar="DB", help="As for `tune`.")
@click.option("--seconds", type=click.FloatRange(0.0), default=600.0, metavar="N", help="As for `tune`.")
@click.option(
    "-o", "--output", "folder", type=OutputFolder(*_FILES), metavar="FOLDER", required=True, help="For all files."
)
@json_option
@click.pass_context
def deploy_command(
    context: click.Context,
    output: Output,
    subject: Callable[[], Subject],
    data: Callable[[Subject], Batches],
    rewrites: Rewrites,
    quantization: Quantization,
    target: str | None,
    compiler: str | None,
    tune: bool,
    objective: str,
    keep: float | None,
    seconds: float,
    folder: Path,
) -> None:
    """Rewrite, tune, quantize, export, check and compile a model, and write a page about it.

    Writes plan.json, decisions.json, recipe.json, model.onnx, the engine and its report, run.html and command.txt. An
    interrupted run goes on from tune_state.json.
    """
    from embedl_deploy.float16 import float32_report, keep_in_float32
    from embedl_deploy.page import write_page
    from embedl_deploy.quantize import quantization_recipe, quantization_report
    from embedl_deploy.tuning import tune as search

    loaded, batches, result = transform_for_data(output, subject, rewrites, data, "Deploying")
    args = loaded.needed_inputs("Deploying")
    folder.mkdir(parents=True, exist_ok=True)
    parts: dict[str, Any] = {}
    if tune:
        with output.working("tuning"):
            searched: dict[str, Any] = {"objective": objective, "keep": keep, "seconds": seconds, "target": target}
            config = quantization.config(result)
            state = folder / "tune_state.json"
            tuned = search(result, batches, config=config, compiler=compiler, state=state, progress=False, **searched)
        tuned.policy.save(folder / "decisions.json")
        quantization = replace(quantization, decisions=folder / "decisions.json")
        parts["frontier"] = tuned
        result = tuned.result
    parts["transformation"] = result
    write_text(folder / "plan.json", result.report.plan.to_json())
    model = result.model
    if not tune or tuned.policy.quantized:
        model = quantization.quantized(result, batches)
        parts["quantization"] = quantization_report(model)
        write_text(folder / "recipe.json", quantization_recipe(model).to_json())
    with output.working("exporting"):
        backend = result.model.meta[BACKEND]
        float_type = _float_type(backend, compiler)
        if float_type is torch.float16:
            model = keep_in_float32(model, batches, progress=False)
            parts["float32"] = float32_report(model)
        file = folder / "model.onnx"
        exported = export_onnx(model, args, file, kwargs=loaded.kwargs or None, dtype=float_type)
    parts["check"] = check(file, backend=backend)
    with output.working("compiling"):
        shapes: Any = dict(exported.shapes) or None
        done = compile_onnx(file, backend=backend, compiler=compiler, target=target, shapes=shapes, progress=False)
    parts["engine"] = done.report
    command = shlex.join(["embedl-deploy", *(context.obj or ["deploy"])])
    write_text(folder / "command.txt", command)
    write_page(folder / "run.html", **parts, commands=[command], title=type(loaded.model).__name__)
    texts = [parts[name] for name in ("frontier", "float32", "check", "engine") if name in parts]
    output.say(f"Wrote {folder}")
    output.result(
        "\n".join(map(str, texts)),
        {
            "folder": str(folder),
            "engine": done.report.to_dict(),
            **({"float32": parts["float32"].to_dict()} if "float32" in parts else {}),
        },
    )


def _float_type(backend: str, compiler: str | None) -> torch.dtype:
    """The type that the compiler is fastest in; if none is installed, compiling says so."""
    compilers = [each for each in get_backend(backend).compilers if compiler in (None, each.name)]
    usable = next((each for each in compilers if each.missing() is None), None)
    return torch.float16 if usable is None else usable.float_type
