"""Everything about quantization in one call."""

from typing import Any

from torch import fx, nn

from embedl_deploy.capture import normalize_args
from embedl_deploy.errors import InputError
from embedl_deploy.pipeline import TransformationResult
from embedl_deploy.quantize.calibration import calibrate
from embedl_deploy.quantize.config import QuantConfig
from embedl_deploy.quantize.data import CalibrationData
from embedl_deploy.quantize.freezing import freeze
from embedl_deploy.quantize.placement import insert_qdq
from embedl_deploy.quantize.reconstruction import correct_biases, learn_rounding
from embedl_deploy.quantize.side_by_side import InputRecorder

#: Samples that corrections measure with.
_SAMPLES = 64


def quantize(
    model: fx.GraphModule | TransformationResult,
    data: CalibrationData | None = None,
    config: QuantConfig | None = None,
    *,
    args: Any = None,
    forward_loop: CalibrationData | None = None,
    bias_correction: bool = False,
    learned_rounding: bool = False,
    freeze_weights: bool = False,
    progress: bool = True,
) -> fx.GraphModule:
    """Insert quantizers into a transformed model and calibrate them.

    Args:
        model: What :func:`embedl_deploy.transform` returned, or the model in it. Not modified.
        data: Calibration data: an iterable of batches, or a function that takes the model and runs it.
        config: Formats, exceptions and policy.
        args: One batch of inputs to calibrate with, if there is nothing better.
        forward_loop: The same as ``data``, by the name of embedl-deploy 0.8.
        bias_correction: Correct the mean of every layer's output (:func:`correct_biases`).
        learned_rounding: Choose the numbers of every weight by what they do to its layer's output
            (:func:`learn_rounding`); corrects biases as well.
        freeze_weights: Return the model frozen, with integer weights.
        progress: Show a progress bar, on a terminal.

    Returns:
        The quantized model; :func:`quantization_report` tells what became of each point.

    Raises:
        InputError: The model or the data is no such thing.
        QuantizationError: See :func:`insert_qdq` and :func:`calibrate`.
    """
    given = [value for value in (data, forward_loop) if value is not None]
    if len(given) > 1:
        raise InputError("quantize was given data and forward_loop, which mean the same; pass one of them.")
    if not given:
        example, _ = normalize_args(args, None)
        if example is None:
            raise InputError(
                "quantize needs calibration data: an iterable of batches, or a function that takes the model and "
                "runs it. Pass quantize(result, data)."
            )
        given = [[example]]
    matches = model.matches if isinstance(model, TransformationResult) else None
    graph_module: nn.Module = model.model if isinstance(model, TransformationResult) else model
    if not isinstance(graph_module, fx.GraphModule):
        raise InputError(
            f"model is a {type(graph_module).__name__}; expected the result of transform: transform(model, ...)."
        )
    quantized = insert_qdq(graph_module, matches, config)
    recorder = InputRecorder(quantized, _SAMPLES if bias_correction or learned_rounding else 0)
    try:
        calibrate(quantized, given[0], progress=progress)
    finally:
        recorder.close()
    if bias_correction or learned_rounding:
        correct = learn_rounding if learned_rounding else correct_biases
        correct(quantized, recorder.inputs, progress=progress)
    return freeze(quantized) if freeze_weights else quantized
