"""Searching the decisions that the compiler makes the best engine of."""

import hashlib
import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn

from embedl_deploy.backend import Backend, CompileOptions, get_backend
from embedl_deploy.compiling.choosing import choose_compiler
from embedl_deploy.engine import EngineReport
from embedl_deploy.errors import InputError
from embedl_deploy.export import OnnxExport, export_onnx
from embedl_deploy.graph.fingerprint import fingerprint, tensors_fingerprint
from embedl_deploy.graph.inputs import tensors_in
from embedl_deploy.numerics.config import QuantConfig
from embedl_deploy.numerics.points import QuantPoint
from embedl_deploy.pipeline import BACKEND, TransformationResult
from embedl_deploy.quantize.api import quantize
from embedl_deploy.quantize.calibration.data import CalibrationData, check_data
from embedl_deploy.quantize.placing.placement import decide_for
from embedl_deploy.quantize.reporting.report import QuantizationReport, quantization_report
from embedl_deploy.sensitivity.layers import layers_of
from embedl_deploy.state_file import StateFile, release
from embedl_deploy.tuning.candidates import Accuracy, Builds, Call
from embedl_deploy.tuning.decisions import policy_of
from embedl_deploy.tuning.files import Files
from embedl_deploy.tuning.measured_calls import measured_calls
from embedl_deploy.tuning.objectives import objective_of
from embedl_deploy.tuning.report import TuneResult
from embedl_deploy.tuning.search import Search
from embedl_deploy.tuning.units import Points, units_of
from embedl_deploy.validation.checked import checked


@checked
def tune(
    result: TransformationResult,
    data: CalibrationData,
    *,
    target: str | None = None,
    objective: str | Callable[[EngineReport], float] = "activation_bytes",
    keep: float | None = None,
    evaluate: Callable[[nn.Module], float] | None = None,
    held_out: CalibrationData | None = None,
    config: QuantConfig | None = None,
    compiler: str | None = None,
    seconds: float = 600.0,
    state: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> TuneResult:
    """Search which points to quantize, judged by the compiler's own engine and by the numbers on data.

    Layers of equal structure decide together. The search starts from float16, from every point quantized, and from
    each of the backend's policies, and never returns anything worse than the best of them that keeps the accuracy. The
    model is exported once; for each candidate, quantizers are taken out of the file, and the compiler builds it.

    Args:
        result: What :func:`embedl_deploy.transform` returned, in float32.
        data: Calibration data.
        target: What to compile for, in the backend's words.
        objective: What to make smaller: ``"activation_bytes"``, ``"kernels"``, ``"engine_bytes"``,
            ``"estimate:DEVICE"`` in seconds, or a function of the engine's report.
        keep: The least accuracy: signal to noise of the outputs in dB, or what ``evaluate`` gives. ``None`` accepts
            any.
        evaluate: A measure of your own, from a model to a number, of which more is better.
        held_out: Data to measure accuracy on; by default the calibration data.
        config: Formats, exceptions; its policy is one more start.
        compiler: Name of the compiler; by default the backend's first that is installed.
        seconds: When to stop searching; the starts are tried in any case.
        state: A file that keeps every engine's report, so that the next call continues after an interruption, also one
            with another objective, ``keep`` or ``evaluate``.
        progress: Show progress bars, on a terminal.

    Raises:
        InputError: An argument does not fit; the state is of another model, compiler, target, configuration or data,
            was changed by hand, or another run uses it.
        CompileError: There is no compiler.
        QuantizationError: There is no data, or the model fails on a batch.
    """
    began = time.monotonic()
    check_data(data)
    if held_out is None and isinstance(data, Iterator):
        raise InputError(
            f"tune reads the calibration data twice, but it is a {type(data).__name__}, which can be read once. Pass a "
            "list, a DataLoader, a function that takes the model and runs it, or other data as held_out."
        )
    for name, value in (("keep", keep), ("seconds", seconds)):
        if value is not None and (math.isnan(value) or (name == "seconds" and value < 0)):
            raise InputError(f"{name} is {value!r}; expected a number{', not negative' if name == 'seconds' else ''}.")
    backend = _backend_of(result)
    objective_name, measured = objective_of(objective, backend)
    chosen = choose_compiler(backend, compiler, Path("model.onnx"), None, CompileOptions(target=target))
    own = ("data", data) if held_out is None else ("held_out", held_out)
    calls = measured_calls(result.model, own[1], own[0], evaluate)
    settings: dict[str, Any] = {"backend": backend.name, "compiler": chosen.name, "target": target}
    quantized = quantize(result, data, _everywhere(config), progress=progress)
    report = quantization_report(quantized)
    layers = layers_of(quantized, report)
    kept = StateFile(state, _identity(result, quantized, report, calls, chosen.describe(), target))
    all_points: Points = frozenset(report.quantized)
    measure = "sqnr" if evaluate is None else "evaluate"
    with kept.in_use() as found, tempfile.TemporaryDirectory() as folder, torch.no_grad():
        args, kwargs = calls[0]

        def export(model: fx.GraphModule, path: Path) -> OnnxExport:
            return export_onnx(model, args, path, kwargs=kwargs or None, dtype=torch.float16, tolerance=None)

        units = units_of(layers)
        unquantized = export(result.model, Path(folder) / "float16.onnx")
        settings["shapes"] = dict(unquantized.shapes) or None
        files = Files(quantized, all_points, units, Path(folder), export)
        known = found.setdefault(f"accuracy {measure}", {}) if evaluate is None else {}
        builds = Builds(files, unquantized.path, settings, kept, found)
        search = Search(
            units,
            Accuracy(quantized, layers, calls, evaluate, known),
            builds,
            measured,
            -math.inf if keep is None else keep,
            began + seconds,
        )
        best, trial = search.run(_starts(result, backend, config, all_points))
    policy = policy_of(report.points, search.why_in_float(best, objective_name))
    return TuneResult(
        policy=policy,
        objective_name=objective_name,
        measure=measure,
        best=trial,
        trials=tuple(search.trials),
        builds=builds.count,
        seconds=time.monotonic() - began,
        finished=search.finished,
    )


def _backend_of(result: TransformationResult) -> Backend:
    name = result.model.meta.get(BACKEND)
    if name is None:
        raise InputError("tune needs to know the compiler: transform the model for a backend, not with a list.")
    return get_backend(name)


def _everywhere(config: QuantConfig | None) -> QuantConfig | None:
    """A configuration whose policy is the backend's default: what the hardware can do at all."""
    if config is None or config.policy is None:
        return config
    return replace(config, policy=None)


def _identity(
    result: TransformationResult,
    quantized: fx.GraphModule,
    report: QuantizationReport,
    calls: list[Call],
    compiler: str,
    target: str | None,
) -> dict[str, str]:
    """What engines and accuracies are of, by name. The objective is not: it is read from an engine's report."""
    points = [(point.path, point.label, point.node, point.config) for point in report.points]
    return {
        "function": "tune",
        "release": release(),
        "model": tensors_fingerprint(sorted(result.model.state_dict().items())),
        "graph": fingerprint(result.model),
        "compiler": compiler,
        "target": str(target),
        "config": hashlib.sha256(json.dumps(points).encode()).hexdigest(),
        "data": tensors_fingerprint((str(i), x) for i, x in enumerate(tensors_in(calls))),
        "calibration": tensors_fingerprint(sorted(quantized.state_dict().items())),
    }


def _starts(
    result: TransformationResult, backend: Backend, config: QuantConfig | None, all_points: Points
) -> dict[str, Points]:
    """Nothing quantized, everything, and what each policy of the backend quantizes."""
    starts = {"float16": frozenset[Any](), "everything": all_points}
    policies: dict[str, str | Callable[[QuantPoint], str | None]] = {name: name for name in backend.policies}
    if config is not None and config.policy is not None:
        policies["the given policy"] = config.policy
    for name, policy in policies.items():
        decisions, _ = decide_for(result.model, result.matches, replace(config or QuantConfig(), policy=policy))
        wanted = {(each.point.path, each.point.label) for each in decisions if each.config is not None}
        points = frozenset(point for point in all_points if (point.path, point.label) in wanted)
        if points not in starts.values():
            starts[name] = points
    return starts
