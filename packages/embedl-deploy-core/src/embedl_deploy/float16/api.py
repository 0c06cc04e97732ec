"""The function ``keep_in_float32``."""

from typing import Any

import torch
from torch import fx

from embedl_deploy.errors import InputError
from embedl_deploy.exclusive import global_state
from embedl_deploy.float16.emulation import Call, run_taken_apart
from embedl_deploy.float16.islands import put_into_float32
from embedl_deploy.float16.report import REPORT, Float16Limit, Float32Node, Float32Report
from embedl_deploy.float16.search import Search
from embedl_deploy.float16.watching import Excess, Watching
from embedl_deploy.graph.edit import copy_of_shared_parameters
from embedl_deploy.graph.metadata import module_path_of
from embedl_deploy.plan.result import TransformationResult
from embedl_deploy.quantize.calibration.calibrate import evaluation_mode
from embedl_deploy.quantize.calibration.data import CalibrationData, check_data, copy_of_call, for_each_call
from embedl_deploy.validation.checked import checked

#: Calls that sets of nodes are tried on; all of the data is watched for what leaves the range.
_TRIED = 4


@checked
def keep_in_float32(
    model: fx.GraphModule | TransformationResult, data: CalibrationData, *, progress: bool = True
) -> fx.GraphModule:
    """Keep the parts of a model in float32 whose values float16 cannot hold, and nothing else.

    The model is run on the data in float32, operator by operator: values beyond 65504, sums that are larger on the
    way, and values that float16's steps are too coarse for are noted. As few nodes as make the outputs right in
    float16 are then put into float32, with casts around them, which do nothing as long as the model is in float32.
    ``.half()`` and ``export_onnx(dtype=torch.float16)`` leave their parameters in float32.

    Args:
        model: A transformed model, quantized or not, in float32. Not modified.
        data: As for :func:`embedl_deploy.quantize.calibrate`: batches, or a function that takes the model and runs it.
        progress: Show a progress bar, on a terminal.

    Returns:
        A copy of the model; :func:`float32_report` tells what stays in float32 and why.

    Raises:
        InputError: The model is not in float32, the data is invalid, or it makes an output NaN or +∞ in float32.
        QuantizationError: There is no data, or the model fails on a batch.
    """
    graph_module = model.model if isinstance(model, TransformationResult) else model
    check_data(data)
    for name, parameter in graph_module.named_parameters():
        if parameter.dtype in (torch.float16, torch.bfloat16, torch.float64):
            raise InputError(
                f"The parameter {name!r} is in {parameter.dtype}; keep_in_float32 has to see the model's values in "
                "float32. Pass the model as it was before it was converted, or in .float()."
            )
    graph_module = copy_of_shared_parameters(graph_module)  # other threads may use the model meanwhile
    with evaluation_mode(graph_module):
        watching, calls = _watch(graph_module, data, progress=progress)
        with global_state:
            kept = Search(graph_module, calls, watching).run()
    names = {node.name for node in kept.nodes}
    written = {node.name for others in watching.written.values() for node in others}
    held = put_into_float32(graph_module, names, {node.name for node in watching.outgrown}, written)
    nodes = (node for node in graph_module.graph.nodes if node in kept.nodes)
    described = tuple(_describe(node, watching.found.get(node)) for node in nodes)
    held.meta[REPORT] = Float32Report(described, kept.sqnr_before, kept.sqnr)
    return held


def _watch(model: fx.GraphModule, data: CalibrationData, *, progress: bool) -> tuple[Watching, list[Call]]:
    """What the nodes of a model compute on the data, and the first calls of the model."""
    watching, calls = Watching(), list[Call]()

    def watch(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        with global_state:
            outputs = run_taken_apart(model, (args, kwargs), watching)
        outputs = [output for output in outputs if output.is_floating_point()]
        if any(bool(output.isnan().any() or output.isposinf().any()) for output in outputs):
            raise InputError(
                "an output of the model is NaN or infinite in float32, so float16 is not what makes it so. Leave out "
                "inputs that do, or correct the model."
            )
        if len(calls) < _TRIED:
            calls.append(copy_of_call(args, kwargs))

    for_each_call(model, data, watch, progress=progress)
    return watching, calls


def _describe(node: fx.Node, excess: Excess | None) -> Float32Node:
    path = str(node.target) if node.op == "call_module" else module_path_of(node)
    if excess is None:
        return Float32Node(node.name, path, node.name, Float16Limit.NEIGHBOUR, 0.0)
    return Float32Node(node.name, path, excess.operator, excess.limit, excess.value)
