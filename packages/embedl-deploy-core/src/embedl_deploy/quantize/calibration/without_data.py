"""Scales without data: of weights, which are known, beside ranges of each call and ranges that are known beforehand."""

from collections.abc import Iterable

from torch import nn

from embedl_deploy.errors import InputError
from embedl_deploy.modules import named_weights
from embedl_deploy.quantize.grid.findings import Finding
from embedl_deploy.quantize.grid.observers import WeightObserver
from embedl_deploy.quantize.grid.scales import Grid
from embedl_deploy.quantize.placing.quantizer import Quantizer

#: Tensors that a message names.
_LISTED = 3

#: What data is, by the function that takes it.
_DATA = {
    "quantize": "an iterable of batches, or a function that takes the model and runs it",
    "quantize_shards": "an iterable of batches",
}


def require_no_data_needed(quantizers: Iterable[Quantizer], function: str = "quantize") -> None:
    """Refuse activations whose ranges are found in data.

    Args:
        quantizers: Of a model.
        function: Whose name the message has.

    Raises:
        InputError: There are some.
    """
    needing = [q.name for q in quantizers if not q.is_weight and not q.calibrated]
    if needing:
        more = f" and {len(needing) - _LISTED} more" if len(needing) > _LISTED else ""
        raise InputError(
            f"{function} needs calibration data: {_DATA[function]}. "
            f"It finds the ranges of {len(needing)} activation(s): {', '.join(needing[:_LISTED])}{more}. Pass "
            f"{function}(..., data); or quantize weights only, or activations with dynamic=True, which need none."
        )


def grids_of_weights(model: nn.Module, quantizers: list[Quantizer]) -> list[tuple[Quantizer, Grid, Finding | None]]:
    """The grid of every weight, from its values.

    Args:
        model: What has the quantizers.
        quantizers: All of them; those of activations are left as they are.

    Raises:
        InputError: Only the module that computes with a weight knows which that is, so it has to run.
        QuantizationError: A weight holds NaN or infinity.
    """
    values = {weight.stub.quantizer: weight.value for weight in named_weights(model)}
    found = []
    for quantizer in quantizers:
        if not quantizer.is_weight:
            continue
        value = values.get(quantizer)
        if value is None:
            raise InputError(
                f"quantize needs calibration data for {quantizer.name}: which tensor that is, the module shows only "
                "when it runs. Pass quantize(result, data) with one batch."
            )
        observer = WeightObserver(quantizer.config, quantizer.name)
        observer.observe(value)
        grid = observer.grid()
        found.append((quantizer, grid, observer.finding(grid)))
    return found
