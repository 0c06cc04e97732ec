"""The function ``quantize``: all steps of quantization in one call."""

from dataclasses import replace
from typing import Any

import torch.distributed as dist
from torch import fx

from embedl_deploy.capture import normalize_args
from embedl_deploy.distributed.ranks import Ranks
from embedl_deploy.distributed.together import taking_part
from embedl_deploy.errors import InputError, QuantizationError
from embedl_deploy.graph.weights_there import require_weights
from embedl_deploy.numerics.config import QuantConfig
from embedl_deploy.numerics.points import PointKind
from embedl_deploy.pipeline import BACKEND
from embedl_deploy.plan.result import TransformationResult
from embedl_deploy.quantize.accuracy.awq import AwqConfig
from embedl_deploy.quantize.accuracy.centering import Centered, CenteringConfig, center, centered_tensors
from embedl_deploy.quantize.accuracy.clipping import clip_ranges
from embedl_deploy.quantize.accuracy.held_back import SAMPLES, hold_back
from embedl_deploy.quantize.accuracy.judging import BY_LAYERS
from embedl_deploy.quantize.accuracy.methods import Methods
from embedl_deploy.quantize.accuracy.reconstruction import correct_biases, learn_rounding
from embedl_deploy.quantize.accuracy.rescaling import rescale
from embedl_deploy.quantize.accuracy.smoothing import SmoothQuantConfig
from embedl_deploy.quantize.calibration.calibrate import calibrate_together
from embedl_deploy.quantize.calibration.chosen_inputs import recorder_for
from embedl_deploy.quantize.calibration.data import CalibrationData, asking, check_data
from embedl_deploy.quantize.calibration.finite import require_finite
from embedl_deploy.quantize.calibration.same_model import facts_of, result_of
from embedl_deploy.quantize.freezing import freeze
from embedl_deploy.quantize.ownership import shared_no_longer, tensors_of
from embedl_deploy.quantize.placing.decisions import Decision
from embedl_deploy.quantize.placing.hardware import complete_config
from embedl_deploy.quantize.placing.placement import decide_for, place
from embedl_deploy.quantize.placing.stored_format import StoresFormat
from embedl_deploy.quantize.reporting.corrections import Correction
from embedl_deploy.quantize.reporting.report import REPORT, quantization_report
from embedl_deploy.validation.checked import checked
from embedl_deploy.verify import state_kept


@checked
def quantize(
    model: fx.GraphModule | TransformationResult,
    data: CalibrationData | None = None,
    config: QuantConfig | None = None,
    *,
    args: Any = None,
    forward_loop: CalibrationData | None = None,
    centering: bool | CenteringConfig = False,
    equalization: bool = False,
    smooth_quant: bool | float | SmoothQuantConfig = False,
    awq: bool | AwqConfig = False,
    bias_correction: bool = False,
    learned_rounding: bool = False,
    judged_by: str = "model",
    freeze_weights: bool = False,
    progress: bool = True,
    process_group: dist.ProcessGroup | None = None,
) -> fx.GraphModule:
    """Insert quantizers into a transformed model and calibrate them.

    Args:
        model: What :func:`embedl_deploy.transform` returned, or the model in it. Not modified.
        data: Calibration data: an iterable of batches, such as ``[x]``, or a function that takes the model and runs it.
            Not needed where only weights are quantized, or activations by the range of each call (``dynamic``).
        config: Formats, exceptions and policy; what is left out is that of the backend's hardware.
        args: One batch of inputs to calibrate with, if there is nothing better.
        forward_loop: The same as ``data``, by the name of embedl-deploy 0.8.
        centering: Use all numbers of a symmetric format for tensors with one sign, such as those behind a ReLU
            (:mod:`embedl_deploy.quantize.accuracy.centering`): ``True``, or a :class:`CenteringConfig`.
        equalization: Even out the weights of neighbouring convolutions first
            (:mod:`embedl_deploy.quantize.accuracy.equalization`). Of the data, it is judged by the first samples; a
            function is called for them.
        smooth_quant: Move part of the range of the inputs of matrix products into their weights first
            (:mod:`embedl_deploy.quantize.accuracy.smoothing`): ``True``, a migration strength for all, or a
            :class:`SmoothQuantConfig`. Reads the data again.
        awq: Scale and clip weights whose inputs stay in float by what they do to the outputs
            (:mod:`embedl_deploy.quantize.accuracy.awq`): ``True``, or an :class:`AwqConfig`. For few bits. Reads the
            data again.
        bias_correction: Correct the mean of every layer's output
            (:mod:`embedl_deploy.quantize.accuracy.reconstruction`).
        learned_rounding: Choose the numbers of every weight by what they do to its layer's output
            (:mod:`embedl_deploy.quantize.accuracy.rounding`); corrects biases as well. A quarter of the samples are
            held back from all methods but centering, and what does harm there is taken back
            (:mod:`embedl_deploy.quantize.accuracy.judging`).
        judged_by: ``"model"``: methods are judged by each layer's error, and then together by that of the model's
            outputs. ``"layers"``: by each layer's error alone, with whole batches held back, as
            :func:`embedl_deploy.shards.quantize_shards` does with a model that is larger than memory; not for ``awq``.
        freeze_weights: Return the model frozen, with integer weights.
        progress: Show a progress bar, on a terminal.
        process_group: Of torch.distributed, whose ranks, and no others, all call this with the same model and
            settings, each with its own part of the data. All get the same model. The samples that methods learn from
            are not the first, but chosen by their content from the data of all ranks.

    Returns:
        The quantized model; :func:`quantization_report` tells what became of each point.

    Raises:
        InputError: The model or the data is invalid, or the weights have no values.
        QuantizationError: See :func:`insert_qdq` and :func:`calibrate`.
        QuantizationConfigError: The migration strength is out of range, or there is no such policy.
        DistributedError: Any of this happened on one of the ranks, or it is silent, or has something else.
    """
    if judged_by not in ("model", BY_LAYERS):
        raise InputError(f"quantize: judged_by is {judged_by!r}; expected 'model' or 'layers'.")
    if judged_by == BY_LAYERS and awq is not False:
        raise InputError("quantize: judged_by='layers' is not for awq, whose ranges are judged by the model's outputs.")
    with taking_part(process_group, "quantize") as ranks:
        return _quantize(
            model,
            _calibration_data(data, forward_loop, args),
            config,
            centering=centering,
            methods=Methods.asked(equalization, smooth_quant, awq, bias_correction, learned_rounding),
            judged_by=judged_by,
            freeze_weights=freeze_weights,
            progress=progress,
            ranks=ranks,
        )


def _quantize(
    model: fx.GraphModule | TransformationResult,
    batches: CalibrationData | None,
    config: QuantConfig | None,
    *,
    centering: bool | CenteringConfig,
    methods: Methods,
    judged_by: str,
    freeze_weights: bool,
    progress: bool,
    ranks: Ranks,
) -> fx.GraphModule:
    """What :func:`quantize` does, as one of some ranks."""
    graph_module = model.model if isinstance(model, TransformationResult) else model
    require_weights(graph_module, "quantize")
    methods.check(batches, ranks)
    matches = model.matches if isinstance(model, TransformationResult) else None
    config = complete_config(config, graph_module.meta.get(BACKEND))
    decisions, policy = decide_for(graph_module, matches, config)
    tensors: list[Centered] = []
    if centering:
        decisions, tensors = center(decisions, CenteringConfig() if centering is True else centering)
    _agree(ranks, graph_module, decisions, (methods, judged_by, freeze_weights, batches is None))
    require_finite((d.point.path, d.point.module) for d in decisions if d.config and d.point.kind is PointKind.WEIGHT)
    shared_before = tensors_of(graph_module)
    corrections: list[Correction] = []
    source = graph_module  # a copy is run, but what its hooks enclose it shares with the source
    original = model.report.plan.original if isinstance(model, TransformationResult) else None
    if batches is not None and any(methods.scaling):
        with asking(original), state_kept(source, random_numbers=False):
            graph_module, corrections, batches = rescale(
                graph_module,
                decisions,
                batches,
                methods.scaling,
                exceptions=tuple(config.exceptions.smooth),
                judged_by=judged_by,
                progress=progress,
                ranks=ranks,
            )
    quantized = place(graph_module, decisions, policy)
    _require_quantizers(quantized)
    recorder = recorder_for(quantized, SAMPLES if methods.correct else 0, ranks)
    try:
        with asking(original), state_kept(source, random_numbers=False):
            calibrate_together(quantized, batches, ranks, progress=progress)
    finally:
        recorder.close()
    corrections += centered_tensors(quantized, tensors)
    if methods.correct:
        held_back = hold_back(quantized, recorder.inputs, ranks, split=judged_by != BY_LAYERS)
        clip = methods.clips
        corrections += clip_ranges(quantized, held_back, progress=progress) if clip else []
        if methods.learned_rounding:
            corrections += learn_rounding(quantized, held_back, clip=clip, judged_by=judged_by, progress=progress)
        elif methods.bias_correction:
            corrections += correct_biases(quantized, held_back, judged_by=judged_by, progress=progress)
    report = quantization_report(quantized)
    findings = (*report.findings, *shared_no_longer(shared_before, tensors_of(quantized)))
    quantized.meta[REPORT] = replace(report, corrections=tuple(corrections), findings=findings)
    quantized = freeze(quantized) if freeze_weights else quantized
    ranks.agree({"result": result_of(quantized, corrections)} if ranks.grouped else {})
    return quantized


def _agree(ranks: Ranks, model: fx.GraphModule, decisions: list[Decision], settings: tuple[Any, ...]) -> None:
    if ranks.grouped:
        points = [(str(decision.point), decision.config) for decision in decisions]
        ranks.agree({**facts_of(model), "configuration": str(points), "settings": str(settings)})


def _require_quantizers(quantized: fx.GraphModule) -> None:
    if any(isinstance(part, StoresFormat) for part in quantized.modules()):
        return
    report = quantization_report(quantized)
    reasons = [f"{point.path} {point.label}: {point.rule}" for point in report.not_quantized]
    reasons += [f"{node} ({operator}): {reason}" for node, operator, reason in report.uncovered]
    listed = [*reasons[:4], *([f"{len(reasons) - 4} more"] if len(reasons) > 4 else [])]
    raise QuantizationError(
        f"Nothing in the model was quantized: {'; '.join(listed) or 'no pattern has fused anything'}. Skip fewer "
        "modules, choose another policy or add a pattern; or continue in float with the result of transform."
    )


def _calibration_data(
    data: CalibrationData | None, forward_loop: CalibrationData | None, args: Any
) -> CalibrationData | None:
    # Scripts written for 0.8 pass args beside forward_loop: example inputs there, of no use here.
    sources = {"data": data, "forward_loop": forward_loop, "args": None if forward_loop is not None else args}
    names = [name for name, value in sources.items() if value is not None]
    if len(names) > 1:
        raise InputError(f"quantize was given {' and '.join(names)}: expected one source of calibration data.")
    given = [value for value in (data, forward_loop) if value is not None]
    if given:
        check_data(given[0])
        return given[0]
    example, _ = normalize_args(args, None)
    return None if example is None else [example]
