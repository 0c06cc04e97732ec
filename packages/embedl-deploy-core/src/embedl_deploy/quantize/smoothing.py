"""SmoothQuant: part of the range of activations moves into the weights that they are multiplied with.

A few channels of a transformer's activations are far larger than the rest, and a scale per tensor serves them alone.
Dividing channel j of the input by s_j, and multiplying column j of the weight by it, changes nothing in float:

    y = (x / s) · (s · Wᵀ),   s_j = max|x_j|^α / max|W_j|^(1−α)

(Xiao et al. 2023, equation 4). All products that read one tensor share s. How much to move, α, differs from layer to
layer: too little leaves outliers, too much puts them into the weights. Unless it is given, it is the one with the least
expected error of the products' outputs, by the formats that they will have. The division is folded into the layer
norm or product before, if every reader of its result is in the group; otherwise it is an operator of its own, which
compilers run together with the quantizer after it.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx, nn

from embedl_deploy.backend import PointKind, QuantPoint
from embedl_deploy.errors import QuantizationConfigError
from embedl_deploy.graph.edit import add_call
from embedl_deploy.graph.lookup import get_module, has_hooks
from embedl_deploy.graph.operators import operation
from embedl_deploy.modules import ChannelScale, FusedModule, with_parameters
from embedl_deploy.quantize.calibration import evaluation_mode
from embedl_deploy.quantize.config import Selector, describe_selector, selects
from embedl_deploy.quantize.data import CalibrationData, run_data
from embedl_deploy.quantize.decisions import Decision, weighted_operator
from embedl_deploy.quantize.formats import TensorQuantConfig
from embedl_deploy.quantize.migration import ChannelStatistics, best_migration_scale, migration_scale
from embedl_deploy.quantize.report import Correction

_WHAT = "smoothing"


@dataclass(frozen=True)
class SmoothQuantConfig:
    """How activations are smoothed.

    Attributes:
        alpha: Migration strength, 0 to 1: how much of the difficulty goes from the activations into the weights.
            ``None`` finds the best for each tensor, and leaves alone those that smoothing would make worse.
        explicit: Whether a division may become an operator of its own where it cannot be folded.

    Raises:
        QuantizationConfigError: ``alpha`` is out of range.
    """

    alpha: float | None = None
    explicit: bool = True

    def __post_init__(self) -> None:
        number = isinstance(self.alpha, (int, float)) and not isinstance(self.alpha, bool)
        if self.alpha is not None and not (number and 0 <= self.alpha <= 1):
            raise QuantizationConfigError(
                f"SmoothQuantConfig: alpha is {self.alpha!r}; expected a number from 0 to 1, or None to find it."
            )


@dataclass
class _Group:
    """Products that read one tensor.

    Attributes:
        source: The node whose value they read.
        readers: Calls of their modules, in graph order.
        formats: The format of the tensor, and of each reader's weight.
        statistics: Of the tensor's channels; ``None`` before any data.
        problem: Why the group cannot be smoothed.
    """

    source: fx.Node
    readers: list[fx.Node] = field(default_factory=list)
    formats: list[TensorQuantConfig] = field(default_factory=list)
    statistics: ChannelStatistics | None = None
    problem: str | None = None

    @property
    def products(self) -> list[tuple[nn.Linear, TensorQuantConfig]]:
        """The readers' matrix products and the formats of their weights."""
        found = []
        for node, config in zip(self.readers, self.formats[1:], strict=True):
            operator = weighted_operator(_module(node))
            assert isinstance(operator, nn.Linear)  # _find_groups has looked
            found.append((operator, config))
        return found


def _module(node: fx.Node) -> nn.Module:
    module = get_module(node)
    assert module is not None  # groups are made of calls of modules
    return module


def smooth(
    model: fx.GraphModule,
    decisions: list[Decision],
    data: CalibrationData,
    config: SmoothQuantConfig,
    exceptions: tuple[Selector, ...] = (),
    *,
    progress: bool = True,
) -> list[Correction]:
    """Smooth the inputs of all products of which both input and weight are to be quantized.

    Args:
        model: A transformed model without quantizers; changed in place, in parameters of its own.
        decisions: What will be quantized, on this model or the one that it is a copy of.
        data: As for :func:`calibrate`; read once.
        config: Migration strength.
        exceptions: Selectors of layer norms and products to leave out.
        progress: Show a progress bar, on a terminal.

    Returns:
        What was done with each group.
    """
    groups = _find_groups(model, decisions, exceptions)
    _measure(model, groups, data, progress=progress)
    done = [Correction(_WHAT, group.source.name, _smooth_group(model, group, config)) for group in groups]
    model.recompile()
    return done


def _find_groups(model: fx.GraphModule, decisions: list[Decision], exceptions: tuple[Selector, ...]) -> list[_Group]:
    nodes = {node.name: node for node in model.graph.nodes}
    weights = {d.point.node.name: d.config for d in decisions if d.config and d.point.kind is PointKind.WEIGHT}
    inputs = {d.point: d.config for d in decisions if d.config and d.point.kind is PointKind.INPUT}
    groups: dict[fx.Node, _Group] = {}
    for point, config in inputs.items():
        weight = weights.get(point.node.name)
        if point.index != 0 or weight is None or not isinstance(weighted_operator(point.module), nn.Linear):
            continue
        node = nodes[point.node.name]
        source = node.args[0]
        assert isinstance(source, fx.Node)  # points are where tensors flow in
        group = groups.setdefault(source, _Group(source, formats=[config]))
        group.readers.append(node)
        group.formats.append(weight)
        for selector in exceptions:
            if selects(selector, point) or _selects_node(selector, _norm_before(source)[0]):
                group.problem = f"skip: {describe_selector(selector)}"
    calls = _calls_of_parts(model)
    for group in groups.values():
        for node, (product, _) in zip(group.readers, group.products, strict=True):
            if group.problem is None and calls[product] > 1:
                group.problem = (
                    f"the product in {node.target} is called {calls[product]} times, and its weight cannot make up for "
                    "a division at each call"
                )
    return list(groups.values())


def _calls_of_parts(model: fx.GraphModule) -> Counter[nn.Module]:
    """How often each part of a model is called, as far as calls in the graph tell.

    Two fused modules may share an operator: a layer that the model calls twice.
    """
    called = (get_module(node) for node in model.graph.nodes if node.op == "call_module")
    return Counter(part for module in called if module is not None for part in module.modules())


def _selects_node(selector: Selector, node: fx.Node) -> bool:
    module = get_module(node)
    if module is None:
        return False
    return selects(selector, QuantPoint(node, str(node.target), module, PointKind.OUTPUT, 0, "output"))


def _norm_before(source: fx.Node) -> tuple[fx.Node, bool]:
    """The node that computes a value, seen through dropout, and whether all on the way has one reader only."""
    single = True
    while _is_dropout(source):
        source = source.all_input_nodes[0]
        single = single and len(source.users) == 1
    return source, single


class _Watcher:
    """Notes the range of what flows into a group's first product, as long as that is what its module is given."""

    def __init__(self, group: _Group) -> None:
        self.group = group
        self.given: torch.Tensor | None = None
        self.handles = [
            _module(group.readers[0]).register_forward_pre_hook(self._module_called),
            group.products[0][0].register_forward_pre_hook(self._operator_called),
        ]

    def _module_called(self, _module: nn.Module, args: tuple[Any, ...]) -> None:
        self.given = args[0]

    def _operator_called(self, _operator: nn.Module, args: tuple[Any, ...]) -> None:
        x: torch.Tensor = args[0]
        if x is not self.given:
            return  # the module makes something of its input first; dividing its channels would not be made up for
        if self.group.statistics is None:
            self.group.statistics = ChannelStatistics.empty(x)
        self.group.statistics.add(x)

    def remove(self) -> None:
        """Watch no longer; a group that was never seen has a problem."""
        for handle in self.handles:
            handle.remove()
        if self.group.problem is None and self.group.statistics is None:
            self.group.problem = "the data never reaches it, or the module does not feed its input to its product"


def _is_dropout(node: fx.Node) -> bool:
    dropped = isinstance(get_module(node), nn.Dropout) if node.op == "call_module" else operation(node) == "dropout"
    return dropped and len(node.all_input_nodes) == 1


@torch.no_grad()
def _measure(model: fx.GraphModule, groups: list[_Group], data: CalibrationData, *, progress: bool) -> None:
    """Find the largest magnitude of each channel of each group's input."""
    watchers = [_Watcher(group) for group in groups]
    try:
        with evaluation_mode(model):
            run_data(model, data, progress=progress)
    finally:
        for watcher in watchers:
            watcher.remove()


@torch.no_grad()
def _smooth_group(model: fx.GraphModule, group: _Group, config: SmoothQuantConfig) -> str:
    if group.problem is not None or group.statistics is None:
        return f"declined: {group.problem}"
    if config.alpha is None:
        scale = best_migration_scale(group.statistics, group.formats[0], group.products)
    else:
        scale = migration_scale(group.statistics, group.products, config.alpha)
    if scale is None:
        return "declined: no migration strength would lessen the error"
    place = _divide(model, group, scale, config)
    if not place.startswith("declined"):
        for node in group.readers:
            _scale_columns(node, scale)
    return place


def _divide(model: fx.GraphModule, group: _Group, scale: torch.Tensor, config: SmoothQuantConfig) -> str:
    """Divide the group's input; returns where that was done."""
    before, single = _norm_before(group.source)
    module = get_module(before)
    alone = single and set(group.source.users) == set(group.readers) and _called_once(model, before)
    problem = "other operators read its output" if not alone else "it is no fused module"
    if alone and module is not None and any(has_hooks(part) for part in module.modules()):
        problem = "it has hooks, which may not let factors through"
    elif alone and isinstance(module, FusedModule):
        declined = module.scale_outputs(1 / scale)
        if declined is None:
            return f"folded into {before.target}"
        problem = declined
    if not config.explicit:
        return f"declined: cannot be folded into {before.name} ({problem})"
    path = insert_scale(model, group.source, group.readers, 1 / scale)
    return f"by {path}, because it cannot be folded into {before.name} ({problem})"


def insert_scale(model: fx.GraphModule, source: fx.Node, readers: list[fx.Node], factors: torch.Tensor) -> str:
    """Multiply the channels of the first argument of some nodes, which is ``source``; returns the multiplier's path."""
    first = min(readers, key=list(model.graph.nodes).index)
    with model.graph.inserting_before(first):
        node = add_call(model, f"{source.name}_smooth", ChannelScale(factors), source)
    for reader in readers:
        reader.args = (node, *reader.args[1:])
    return str(node.target)


def _called_once(model: fx.GraphModule, node: fx.Node) -> bool:
    return [other.target for other in model.graph.nodes if other.op == node.op].count(node.target) == 1


def _scale_columns(node: fx.Node, scale: torch.Tensor) -> None:
    module = _module(node)
    operator = weighted_operator(module)
    owner = next(part for part in module.modules() if operator in part._modules.values())
    name = next(name for name, part in owner._modules.items() if part is operator)
    assert isinstance(operator, nn.Linear)  # _find_groups has looked
    owner._modules[name] = with_parameters(operator, operator.weight * scale, operator.bias)
