"""The calls on which the accuracy of candidates is measured."""

from collections.abc import Callable

import torch
from torch import fx, nn

from embedl_deploy.errors import InputError
from embedl_deploy.graph.edit import copy_of_shared_parameters
from embedl_deploy.quantize.calibration.calibrate import evaluation_mode
from embedl_deploy.quantize.calibration.data import CalibrationData, first_calls
from embedl_deploy.tuning.accuracy import Call
from embedl_deploy.verify.difference import float_tensors, run_unchanged

#: How many.
_MEASURED = 8


@torch.no_grad()
def measured_calls(
    model: fx.GraphModule, data: CalibrationData, name: str, evaluate: Callable[[nn.Module], float] | None
) -> list[Call]:
    """Copies of the inputs of the first calls.

    Args:
        model: The model in float. It is not run itself, since other threads may.
        data: What runs it.
        name: The argument that the data is.
        evaluate: The user's measure of a model; without it there must be a signal to noise ratio.

    Raises:
        InputError: There is none, because no output is in floating point or one holds NaN.
        QuantizationError: There is no data, or the model fails on a batch.
    """
    copied = copy_of_shared_parameters(model)
    with evaluation_mode(copied):
        calls = first_calls(copied, data, _MEASURED, progress=False)
        if evaluate is not None:
            return calls
        for number, (args, kwargs) in enumerate(calls, 1):
            outputs = float_tensors(run_unchanged(copied, args, kwargs))
            if not outputs:
                raise InputError(
                    "The model has no output in floating point, so tune cannot measure a signal-to-noise ratio. Pass "
                    "evaluate=..., a function that takes a model and returns a number, such as the share of "
                    "correct answers."
                )
            if any(bool(output.isnan().any()) for output in outputs):
                raise InputError(
                    f"An output of the model is NaN on call {number} of {name}, so tune cannot measure a "
                    f"signal-to-noise ratio. Leave inputs out of {name} that make it so, or pass evaluate=..."
                )
    return calls
