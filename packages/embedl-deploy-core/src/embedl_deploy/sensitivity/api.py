"""Measures how much quantizing each layer costs."""

import os
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import fx, nn

from embedl_deploy.distributed.ranks import Ranks
from embedl_deploy.distributed.together import taking_part
from embedl_deploy.errors import InputError, QuantizationError
from embedl_deploy.exclusive import global_state
from embedl_deploy.graph.edit import deep_copy
from embedl_deploy.graph.fingerprint import fingerprint, tensors_fingerprint
from embedl_deploy.graph.inputs import tensors_in
from embedl_deploy.quantize.calibration.calibrate import evaluation_mode
from embedl_deploy.quantize.calibration.data import CalibrationData, check_data, for_each_call
from embedl_deploy.quantize.calibration.same_model import facts_of
from embedl_deploy.quantize.placing.quantizer import IntegerWeight
from embedl_deploy.quantize.reporting.report import quantization_report
from embedl_deploy.sensitivity.evaluation import evaluate_groups
from embedl_deploy.sensitivity.layers import Layer, layers_of
from embedl_deploy.sensitivity.metrics import METRICS, Metric
from embedl_deploy.sensitivity.noise import Noise, add_batch
from embedl_deploy.sensitivity.of_all_ranks import noise_of_all
from embedl_deploy.sensitivity.report import LayerSensitivity, SensitivityReport
from embedl_deploy.state_file import StateFile, release
from embedl_deploy.validation.checked import checked


@checked
def sensitivity(
    model: fx.GraphModule,
    data: CalibrationData | None = None,
    *,
    metric: Literal["sqnr", "kl"] = "sqnr",
    evaluate: Callable[[nn.Module], float] | None = None,
    probes: int = 1,
    seed: int = 0,
    state: str | os.PathLike[str] | None = None,
    progress: bool = True,
    process_group: dist.ProcessGroup | None = None,
) -> SensitivityReport:
    """Measure how much quantizing each layer changes the outputs, and what leaving it in float would gain.

    All layers are measured in one pass over the data: each computes on the exact values at its border, once with its
    own quantizers and once without, and a backward pass tells what that error does to the outputs
    (:mod:`embedl_deploy.sensitivity.noise`). That holds for errors that are small and independent of each other.

    With ``evaluate`` each group of layers of equal structure is evaluated instead: two evaluations for each.

    Args:
        model: A calibrated model, as :func:`embedl_deploy.quantize.quantize` returns it, not frozen. Its state stays.
        data: Batches, or a function that takes the model and runs it; each sample is one probe.
        metric: ``"sqnr"`` of the outputs, or ``"kl"``, the divergence of their softmax over the last axis.
        evaluate: A measure of your own, from a model to a number, of which more is better; takes the place of ``data``
            and ``metric``.
        probes: Backward passes for each batch; more make the result of few samples more certain.
        seed: Of the probes.
        state: A file that keeps what was measured, so that the next call continues after an interruption.
        progress: Show a progress bar, on a terminal.
        process_group: Of torch.distributed, whose ranks, and no others, all call this with the same model, each with
            its own part of the data. All get one report, of all data. Not together with ``evaluate`` or ``state``.

    Raises:
        QuantizationError: The model is not quantized, or frozen; no gradient reaches a layer; there is no data, or the
            model fails on a batch.
        InputError: The data is invalid, or the state is of another model, metric or data.
        DistributedError: Any of this happened on one of the ranks, or it is silent, or has another model.
    """
    with taking_part(process_group, "sensitivity") as ranks:
        if ranks.grouped and (evaluate is not None or state is not None):
            name = "evaluate" if evaluate is not None else "state"
            raise InputError(f"{name} is for one process, and a process group was passed. Pass one of the two.")
        return _sensitivity(model, data, metric, evaluate, probes, seed, state, ranks, progress=progress)


def _sensitivity(
    model: fx.GraphModule,
    data: CalibrationData | None,
    metric: Literal["sqnr", "kl"],
    evaluate: Callable[[nn.Module], float] | None,
    probes: int,
    seed: int,
    state: str | os.PathLike[str] | None,
    ranks: Ranks,
    *,
    progress: bool,
) -> SensitivityReport:
    """What :func:`sensitivity` does, as one of some ranks."""
    if any(isinstance(part, IntegerWeight) for part in model.modules()):
        raise QuantizationError(
            "The model is frozen: its weights are integers, and nothing tells what they were in float. Pass it as it "
            "was before freeze, or quantize without freeze_weights."
        )
    if probes < 1:
        raise InputError(f"probes is {probes}; expected 1 or more.")
    report = quantization_report(model)
    with torch.inference_mode(False):  # a copy in which gradients can be computed
        model = deep_copy(model)  # quantizers are taken out of it meanwhile, and other threads may use the model
    layers = layers_of(model, report)
    if not layers:
        raise QuantizationError("Nothing of the model is quantized, so there is nothing to measure.")
    kept = StateFile(
        state,
        {
            "function": "sensitivity",
            "release": release(),
            "model": tensors_fingerprint(sorted(model.state_dict().items())),
            "graph": fingerprint(model),
            "metric": metric if evaluate is None else "evaluate",
            "number of probes": str(probes),
            "seed": str(seed),
        },
    )
    if evaluate is not None:
        return evaluate_groups(model, layers, evaluate, kept, progress=progress)
    if data is None:
        raise InputError("sensitivity needs data: batches, a function that runs the model, or evaluate=...")
    check_data(data)
    if ranks.grouped:
        ranks.agree({**facts_of(model), "settings": str((metric, probes, seed))})
        noise = noise_of_all(model, layers, METRICS[metric], probes, seed, data, ranks, progress=progress)
        return _report(noise, layers, METRICS[metric])
    noise = _Measuring(model, layers, METRICS[metric], probes, seed, kept).run(data, progress=progress)
    return _report(noise, layers, METRICS[metric])


class _Measuring:
    """Measures batch after batch, and keeps what was found."""

    def __init__(
        self, model: fx.GraphModule, layers: list[Layer], metric: Metric, probes: int, seed: int, state: StateFile
    ) -> None:
        self.model, self.layers, self.metric, self.probes, self.seed = model, layers, metric, probes, seed
        self.state = state
        self.seen: list[str] = []
        self.noise = Noise()

    def run(self, data: CalibrationData, *, progress: bool) -> Noise:
        """Measure all batches that have not been."""
        with self.state.in_use() as saved:
            known: list[str] = saved.get("batches", [])
            if saved:
                self.noise = Noise(**saved["noise"])
            self._measure_the_rest(data, known, progress=progress)
        return self.noise

    def _measure_the_rest(self, data: CalibrationData, known: list[str], *, progress: bool) -> None:

        def measure(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            place = len(self.seen)
            self.seen.append(tensors_fingerprint((str(i), x) for i, x in enumerate(tensors_in(args, kwargs))))
            if place >= len(known):
                generator = torch.Generator().manual_seed(self.seed + place)
                with global_state:
                    of = (self.noise, self.model, self.layers, (args, kwargs))
                    add_batch(*of, self.metric, generator, self.probes)
                self.state.save({"noise": asdict(self.noise), "batches": self.seen})
            elif known[place] != self.seen[place]:
                raise InputError(
                    f"{os.fspath(self.state.path or '')!r} is the state of other data: batch {place + 1} differs. Give "
                    "another file, or delete it to start over."
                )

        with evaluation_mode(self.model):
            for_each_call(self.model, data, measure, progress=progress)
        if len(known) > len(self.seen):
            raise InputError(
                f"{os.fspath(self.state.path or '')!r} is the state of other data: it has {len(known)} batches, and "
                f"this has {len(self.seen)}. Give another file, or delete it to start over."
            )


def _report(noise: Noise, layers: list[Layer], metric: Metric) -> SensitivityReport:
    whole = sum(each["both"] for each in noise.layers.values())
    rows = []
    for layer in layers:
        energy = noise.layers.get(layer.node.name, {"both": 0.0, "weight": 0.0, "activation": 0.0})
        share = energy["both"] / whole if whole else 0.0
        rows.append(
            LayerSensitivity(
                path=layer.path,
                node=layer.node.name,
                module=layer.kind,
                group=layer.group,
                alone=metric.value(energy["both"], noise.scale),
                weight_alone=metric.value(energy["weight"], noise.scale),
                activation_alone=metric.value(energy["activation"], noise.scale),
                left_in_float=metric.value(noise.total * (1 - share), noise.scale),
                share=share,
            )
        )
    return SensitivityReport(
        metric.name, metric.value(noise.total, noise.scale), tuple(rows), noise.batches, noise.probes
    )
