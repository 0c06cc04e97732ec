"""Measures sensitivity with the user's own metric, one group of layers at a time."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx, nn

from embedl_deploy.errors import InputError
from embedl_deploy.quantize.calibration.progress import progress_bar
from embedl_deploy.sensitivity.layers import Layer
from embedl_deploy.sensitivity.report import LayerSensitivity, SensitivityReport
from embedl_deploy.sensitivity.with_points import with_points
from embedl_deploy.state_file import StateFile
from embedl_deploy.validation.quoting import quoted


def number_from(value: Any, function: str, of: str, *, infinite: bool = False) -> float:
    """What a user's function gave, as a number; of numpy and of a tensor with one value as well.

    Args:
        value: What it gave.
        function: What the function is called.
        of: What it was given.
        infinite: Whether infinities are numbers.

    Raises:
        InputError: It is something else.
    """
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError):
        number = math.nan
    if math.isnan(number) or (math.isinf(number) and not infinite) or isinstance(value, str):
        raise InputError(f"{function} gave {quoted(value)} for {of}; expected a {'' if infinite else 'finite '}number.")
    return number


def evaluate_groups(
    model: fx.GraphModule,
    layers: Sequence[Layer],
    evaluate: Callable[[nn.Module], float],
    state: StateFile,
    *,
    progress: bool,
) -> SensitivityReport:
    """Evaluate the model with each group of layers quantized alone, and with each left in float.

    Args:
        model: A calibrated model.
        layers: Its layers.
        evaluate: The user's measure of a model; more is better.
        state: Values that are known already are taken from there.
        progress: Show a progress bar, on a terminal.

    Raises:
        InputError: ``evaluate`` gives something else than a finite number.
    """
    groups: dict[str, list[Layer]] = {}
    for layer in layers:
        groups.setdefault(layer.group, []).append(layer)
    tasks: dict[str, list[Layer]] = {"float": [], "quantized": list(layers)}
    for group, members in groups.items():
        tasks[f"alone {group}"] = members
        tasks[f"left in float {group}"] = [layer for layer in layers if layer not in members]
    with state.in_use() as values:
        unknown = [name for name in tasks if name not in values]
        with progress_bar("evaluating", unknown, shown=progress) as names:
            for name in names:
                with torch.no_grad():
                    value = evaluate(with_points(model, {layer: layer.points for layer in tasks[name]}))
                values[name] = number_from(value, "evaluate", f"the model with {name}")
                state.save(values)
    lost = {group: values["float"] - values[f"alone {group}"] for group in groups}
    whole = sum(max(each, 0.0) for each in lost.values())
    rows = tuple(
        LayerSensitivity(
            *(layer.path, layer.node.name, layer.kind, layer.group),
            alone=values[f"alone {layer.group}"],
            weight_alone=None,
            activation_alone=None,
            left_in_float=values[f"left in float {layer.group}"],
            share=max(lost[layer.group], 0.0) / whole / len(groups[layer.group]) if whole else 0.0,
        )
        for layer in layers
    )
    return SensitivityReport("evaluate", values["quantized"], rows)
