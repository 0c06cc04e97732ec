"""Searching the decisions that the compiler makes the best engine of."""

import math
import os
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from embedl_deploy.backend import Backend, CompileOptions, get_backend
from embedl_deploy.compiling import load_engine
from embedl_deploy.compiling.choosing import choose_compiler
from embedl_deploy.engine import EngineReport
from embedl_deploy.errors import InputError
from embedl_deploy.export.prepare import in_signature_order
from embedl_deploy.graph.inputs import tensors_in
from embedl_deploy.numerics.config import QuantConfig
from embedl_deploy.numerics.formats import Precision
from embedl_deploy.pipeline import BACKEND, TransformationResult
from embedl_deploy.plan.serialization import plan_to_json
from embedl_deploy.quantize.api import quantize
from embedl_deploy.quantize.calibration.data import CalibrationData, check_data
from embedl_deploy.quantize.placing.hardware import complete_config
from embedl_deploy.state_file import StateFile
from embedl_deploy.tuning.builds import Builds
from embedl_deploy.tuning.clock import Clock
from embedl_deploy.tuning.decisions import policy_of
from embedl_deploy.tuning.formats import other_formats
from embedl_deploy.tuning.identity import identity_of
from embedl_deploy.tuning.measured_calls import measured_calls
from embedl_deploy.tuning.objectives import objective_of
from embedl_deploy.tuning.report import TuneResult
from embedl_deploy.tuning.run_off import run_off
from embedl_deploy.tuning.search import Search
from embedl_deploy.tuning.subject import Subject
from embedl_deploy.tuning.task import Task
from embedl_deploy.tuning.units import Points
from embedl_deploy.tuning.without import try_without_matches
from embedl_deploy.validation.checked import checked

#: The share of the time in which points are decided, before matches of the plan are.
_SHARE_OF_POINTS = 0.8


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
    formats: Collection[Precision] | None = None,
    rewrites: bool = True,
    compiler: str | None = None,
    threads: int | None = None,
    seconds: float = 600.0,
    state: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> TuneResult:
    """Search what to quantize, how, and what to rewrite, judged by the compiler's engines and by the numbers on data.

    Layers of equal structure decide together. The search starts from float16, or the floating-point type that the
    compiler's hardware is fastest in, from every point quantized, and from
    each of the backend's policies, in each format, and never returns anything worse than the best of them that keeps
    the accuracy. The model is exported once; for each candidate, quantizers are taken out of the file or changed, and
    the compiler builds it. Then matches of the plan are switched off, where that gives another file.

    Args:
        result: What :func:`embedl_deploy.transform` returned, in float32.
        data: Calibration data.
        target: What to compile for, in the backend's words.
        objective: What to make smaller: ``"activation_bytes"``, ``"kernels"``, ``"engine_bytes"``,
            ``"estimate:DEVICE"`` in seconds, ``"latency"``, the time of the engine's runs on the hardware in this
            machine, each engine in turns with the one in float, or a function of the engine's report. Of engines that
            are as fast as the fastest, within 2 %, the most accurate is the best.
        keep: The least accuracy: signal to noise of the outputs in dB, or what ``evaluate`` gives. ``None`` accepts
            any.
        evaluate: A measure of your own, from a model to a number, of which more is better.
        held_out: Data to measure accuracy on; by default the calibration data.
        config: Formats, exceptions; its policy is one more start.
        formats: Number formats to choose from beside the configuration's; by default those of one byte that a device
            of the target computes in, such as FP8.
        rewrites: Whether to try the plan without some of its matches, in the time that is left.
        compiler: Name of the compiler; by default the backend's first that is installed.
        threads: Threads that engines run with where they are timed; by default the runtime's choice.
        seconds: When to stop searching; the starts are tried in any case.
        state: A file that keeps every engine's report, so that the next call continues after an interruption, also one
            with another objective, ``keep`` or ``evaluate``.
        progress: Show progress bars, on a terminal.

    Raises:
        InputError: An argument does not fit; the state is of another model, compiler, target, configuration or data,
            was changed by hand, or another run uses it.
        CompileError: There is no compiler; or the objective is the latency, and no engine can be run here.
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
    chosen_objective = objective_of(objective, backend)
    complete = complete_config(config, backend.name)
    complete = replace(complete, policy=None if config is None else config.policy)
    other_formats(complete, formats, backend, "")  # refused before any work
    chosen = choose_compiler(
        backend, compiler, Path("model.onnx"), None, CompileOptions(target=target, threads=threads)
    )
    own = ("data", data) if held_out is None else ("held_out", held_out)
    calls = measured_calls(result.model, own[1], own[0], evaluate)
    where: dict[str, Any] = {"backend": backend.name, "compiler": chosen.name, "threads": threads}
    settings = {**where, "target": target}
    quantized = quantize(result, data, replace(complete, policy=None), progress=progress)
    kept = StateFile(state, identity_of(result, quantized, calls, chosen.describe(), target, threads))
    search = Search(chosen_objective, -math.inf if keep is None else keep, began + seconds, backend.devices)
    with kept.in_use() as found, tempfile.TemporaryDirectory() as folder, torch.no_grad():
        args, kwargs = calls[0]
        inputs = tensors_in(args, in_signature_order(result.model, kwargs))
        clock = Clock(lambda engine: load_engine(engine, **where), inputs) if chosen_objective.is_time else None
        builds = Builds(settings, kept, found, clock)
        task = Task(
            result.model,
            backend,
            chosen.float_type,
            data,
            calls,
            complete,
            evaluate,
            builds,
            found,
            Path(folder),
            progress,
        )
        subject = Subject(result, quantized, task)
        builds.reference = lambda: subject.file(Points())
        settings["shapes"] = dict(subject.unquantized.shapes) or None
        search.try_starts(subject)
        engine = subject.engine(Points())
        configs = {} if engine is None else other_formats(complete, formats, backend, engine.report.target)
        if configs:
            subject.add_formats(configs)
            search.try_starts(subject)
        search.require_best()
        search.improve(subject, _SHARE_OF_POINTS if rewrites else 1.0)
        tried = try_without_matches(search, subject, configs) if rewrites else {}
        if chosen_objective.is_time:
            run_off(search)
    best = search.require_best()
    others = [point for point in best.points if point not in best.subject.report.quantized]
    reasons = search.why_in_float(best, chosen_objective.name)
    policy = policy_of(best.subject.report.points, reasons, others, backend.name)
    return TuneResult(
        policy=policy,
        config=policy.config(None if config is None else complete),
        result=best.subject.result,
        plan=plan_to_json(best.subject.result.report.plan),
        rewrites=tried,
        objective_name=chosen_objective.name,
        measure="sqnr" if evaluate is None else "evaluate",
        best=best.trial,
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
