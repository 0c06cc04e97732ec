"""Corrections that need a layer's exact inputs beside its quantized ones.

The graph is run once, node by node, with exact and with quantized values side by side. At each operator with a
quantized weight the weight or the bias is corrected, and what follows sees the corrected output: errors do not add up
on the way.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx, nn

from embedl_deploy.graph.lookup import get_constant
from embedl_deploy.modules import FusedConv, QuantStub
from embedl_deploy.quantize.calibration import evaluation_mode
from embedl_deploy.quantize.data import progress_bar
from embedl_deploy.quantize.decisions import weighted_operator
from embedl_deploy.quantize.operators import expand_scale
from embedl_deploy.quantize.patches import grouped, is_supported, samples
from embedl_deploy.quantize.quantizer import Quantizer
from embedl_deploy.quantize.rounding import Moments, fitted_weight, rounded_weight
from embedl_deploy.quantize.scales import grid_of_weight

#: One run of the model: its positional and keyword inputs.
Inputs = tuple[tuple[Any, ...], dict[str, Any]]


class InputRecorder:
    """Keeps the first inputs that a model is called with, up to a number of samples.

    Args:
        model: The model to watch.
        limit: How many samples (rows of the first tensor) to keep.
    """

    def __init__(self, model: nn.Module, limit: int) -> None:
        self.inputs: list[Inputs] = []
        self.room = limit
        self._handle = model.register_forward_pre_hook(self._record, with_kwargs=True)

    def _record(self, _model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if self.room > 0:
            self.inputs.append((args, kwargs))
            first = next((v for v in (*args, *kwargs.values()) if isinstance(v, torch.Tensor)), None)
            self.room -= first.shape[0] if first is not None and first.dim() > 0 else 1

    def close(self) -> None:
        """Watch no longer."""
        self._handle.remove()


def correct_biases(model: fx.GraphModule, inputs: Sequence[Inputs], *, progress: bool = True) -> list[str]:
    """Give every layer with a quantized weight the bias at which the means of its outputs are the exact ones.

    Nagel et al. 2019, section 4.2, with measured means. Batch norm is folded first.

    Args:
        model: Calibrated; changed in place, in parameters of its own.
        inputs: Runs of the model to measure with.
        progress: Show a progress bar, on a terminal.

    Returns:
        Paths of the modules that could not be corrected.
    """
    return _side_by_side(model, inputs, learn_weights=False, progress=progress)


def learn_rounding(model: fx.GraphModule, inputs: Sequence[Inputs], *, progress: bool = True) -> list[str]:
    """Choose for every quantized weight the numbers that reproduce its layer's outputs best, and correct biases.

    See :mod:`embedl_deploy.quantize.rounding`. Arguments and result as for :func:`correct_biases`.
    """
    return _side_by_side(model, inputs, learn_weights=True, progress=progress)


@torch.no_grad()
def _side_by_side(
    model: fx.GraphModule, inputs: Sequence[Inputs], *, learn_weights: bool, progress: bool
) -> list[str]:
    skipped: list[str] = []
    for module in model.modules():
        if isinstance(module, FusedConv) and _weight_quantizer(module) is not None:
            module.fold_batch_norm()
    exact: list[dict[fx.Node, Any]] = [{} for _ in inputs]
    quantized: list[dict[fx.Node, Any]] = [{} for _ in inputs]
    nodes = list(model.graph.nodes)
    last_use = {used: node for node in nodes for used in node.all_input_nodes}
    originals: dict[nn.Module, tuple[nn.Module, Any, Any]] = {}
    what = "learning rounding" if learn_weights else "correcting biases"
    with evaluation_mode(model), progress_bar(what, nodes, shown=progress) as shown:
        for node in shown:
            module = model.get_submodule(str(node.target)) if node.op == "call_module" else None
            for values, run in zip(exact, inputs, strict=True):
                with _as_it_was(module, originals):
                    values[node] = _run(model, node, module, values, run)
            if module is not None and _weight_quantizer(module) is not None and module not in originals:
                operator: Any = weighted_operator(module)
                if is_supported(operator) and _is_symmetric(module):
                    originals[module] = (operator, operator.weight, operator.bias)
                    _correct(node, module, operator, exact, quantized, learn_weights=learn_weights)
                else:
                    skipped.append(str(node.target))
            for values, run in zip(quantized, inputs, strict=True):
                values[node] = _run(model, node, module, values, run)
            for used in node.all_input_nodes:
                if last_use[used] is node:
                    for values in (*exact, *quantized):
                        del values[used]
    return skipped


def _weight_quantizer(module: nn.Module) -> Quantizer | None:
    stub = module._modules.get("weight_fake_quant")
    quantizer = stub.quantizer if isinstance(stub, QuantStub) else None
    return quantizer if isinstance(quantizer, Quantizer) else None


def _is_symmetric(module: nn.Module) -> bool:
    quantizer = _weight_quantizer(module)
    return quantizer is not None and quantizer.zero_point is None


@contextmanager
def _as_it_was(module: nn.Module | None, originals: dict[nn.Module, tuple[nn.Module, Any, Any]]) -> Iterator[None]:
    """Within the block no quantizer in ``module`` rounds, and its weight is the one from before its correction."""
    stubs = [(p, p.quantizer) for p in (() if module is None else module.modules()) if isinstance(p, QuantStub)]
    operator, weight, bias = originals[module] if module in originals else (None, None, None)
    for stub, _ in stubs:
        stub.quantizer = None
    if operator is not None:
        corrected = operator.weight, operator.bias
        operator.weight, operator.bias = weight, bias
    try:
        yield
    finally:
        if operator is not None:
            operator.weight, operator.bias = corrected
        for stub, quantizer in stubs:
            stub.quantizer = quantizer


def _run(
    model: fx.GraphModule, node: fx.Node, module: nn.Module | None, values: dict[fx.Node, Any], inputs: Inputs
) -> Any:
    """Compute one node from the values before it."""
    if node.op == "placeholder":
        positional, named = inputs
        position = [n.target for n in model.graph.nodes if n.op == "placeholder"].index(node.target)
        if position < len(positional):
            return positional[position]
        return named[str(node.target)] if str(node.target) in named else node.args[0]
    if node.op == "get_attr":
        return get_constant(node)
    if node.op == "output":
        return None
    args, kwargs = (fx.map_arg(part, values.__getitem__) for part in (node.args, node.kwargs))
    if module is not None:
        return module(*args, **kwargs)
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    assert callable(node.target)  # call_function is all that is left
    return node.target(*args, **kwargs)


class _Reached(Exception):  # noqa: N818 - no error: it ends a call when the operator's input is known
    """Carries what flows into an operator."""

    def __init__(self, value: torch.Tensor) -> None:
        super().__init__()
        self.value = value


def _operator_input(node: fx.Node, module: nn.Module, operator: nn.Module, values: dict[fx.Node, Any]) -> torch.Tensor:
    """What flows into the weighted operator when the module is called with these values."""
    def stop(_operator: nn.Module, args: tuple[Any, ...]) -> None:
        raise _Reached(args[0])

    handle = operator.register_forward_pre_hook(stop)
    args, kwargs = (fx.map_arg(part, values.__getitem__) for part in (node.args, node.kwargs))
    try:
        with _as_it_was(module, {}):
            module(*args, **kwargs)
    except _Reached as reached:
        return reached.value
    finally:
        handle.remove()
    return args[0]  # type: ignore[no-any-return]  # the module uses the weight without calling the operator


def _correct(
    node: fx.Node,
    module: nn.Module,
    operator: Any,
    exact: list[dict[fx.Node, Any]],
    quantized: list[dict[fx.Node, Any]],
    *,
    learn_weights: bool,
) -> None:
    quantizer = _weight_quantizer(module)
    assert quantizer is not None  # the caller has looked
    weight = grouped(operator.weight.detach(), operator)
    moments = Moments.empty(weight.shape[0], weight.shape[2], weight)
    for values, rounded in zip(exact, quantized, strict=True):
        pair = (samples(_operator_input(node, module, operator, v), operator) for v in (values, rounded))
        for x, x_rounded in zip(*pair, strict=True):
            moments.add(x.float(), x_rounded.float())
    new = operator.weight.detach()
    if learn_weights:
        wanted = fitted_weight(weight, moments)
        quantizer.set_grid(grid_of_weight(wanted.reshape(operator.weight.shape), quantizer.config))
        spread = expand_scale(quantizer.scale, operator.weight, quantizer.axis, quantizer.config.block_size or 0)
        scale = grouped(spread.expand_as(operator.weight), operator)
        square, _ = moments.covariances()
        new = rounded_weight(wanted, square, scale, quantizer.config).reshape(operator.weight.shape)
        operator.weight = nn.Parameter(new, requires_grad=operator.weight.requires_grad)
    mean, mean_rounded = (m[:, :, None] for m in moments.means())
    shift = weight @ mean - grouped(quantizer(new), operator) @ mean_rounded
    shift = shift.reshape(-1)
    bias = shift if operator.bias is None else operator.bias.detach() + shift
    operator.bias = nn.Parameter(bias)


