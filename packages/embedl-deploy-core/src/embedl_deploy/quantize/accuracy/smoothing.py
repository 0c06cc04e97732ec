"""SmoothQuant: part of the range of activations moves into the weights that they are multiplied with.

A few channels of a transformer's activations are far larger than the rest, and a scale per tensor serves them alone.
Dividing channel j of the input by s_j, and multiplying column j of the weight by it, changes nothing in float:

    y = (x / s) · (s · Wᵀ),   s_j = max|x_j|^α / max|W_j|^(1−α)

(Xiao et al. 2023, equation 4). All products that read one tensor share s. How much to move, α, differs from layer to
layer: too little leaves outliers, too much puts them into the weights. Unless it is given, it is the one with the least
expected error of the products' outputs, by the formats that they will have. The division is folded into the layer
norm or product before, if every reader of its result is in the group; behind a gate, into the product that the
activation is multiplied by. Otherwise it is an operator of its own, which compilers run together with the quantizer
after it.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass, field

import torch
from torch import fx, nn

from embedl_deploy.errors import QuantizationConfigError
from embedl_deploy.graph.casts import is_cast
from embedl_deploy.graph.edit import add_call
from embedl_deploy.graph.lookup import argument_at, get_module, has_hooks, set_argument
from embedl_deploy.graph.metadata import shape_of
from embedl_deploy.graph.operators import operation
from embedl_deploy.graph.uses import times_read
from embedl_deploy.modules import ChannelScale, FusedModule, named_weights, with_parameters
from embedl_deploy.modules.device import device_of
from embedl_deploy.numerics.points import PointKind, QuantPoint
from embedl_deploy.numerics.selectors import Selector, describe_selector, selects
from embedl_deploy.numerics.tensor_config import TensorQuantConfig
from embedl_deploy.quantize.accuracy.migration import ChannelStatistics, best_migration_scale, migration_scale
from embedl_deploy.quantize.accuracy.readers import ReaderWatch
from embedl_deploy.quantize.calibration.calibrate import buffers_kept, evaluation_mode
from embedl_deploy.quantize.calibration.data import CalibrationData, run_data
from embedl_deploy.quantize.placing.decisions import Decision
from embedl_deploy.quantize.placing.report import Correction
from embedl_deploy.validation.checked import checked

_WHAT = "smoothing"


@checked(error=QuantizationConfigError)
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
        if self.alpha is not None and not 0 <= self.alpha <= 1:
            raise QuantizationConfigError(
                f"SmoothQuantConfig: alpha is {self.alpha!r}; expected a number from 0 to 1, or None to find it."
            )


@dataclass
class _Group:
    """Products that read one tensor.

    Attributes:
        source: The node whose value they read.
        config: The format of the tensor.
        readers: Calls of their modules, in graph order, with the formats of the modules' products by the weight's
            name: at first of all that could read the tensor, then of those that do.
        statistics: Of the tensor's channels; ``None`` before any data.
        problem: Why the group cannot be smoothed.
    """

    source: fx.Node
    config: TensorQuantConfig
    readers: dict[fx.Node, dict[str, TensorQuantConfig]] = field(default_factory=dict)
    statistics: ChannelStatistics | None = None
    problem: str | None = None

    @property
    def products(self) -> list[tuple[nn.Linear, TensorQuantConfig]]:
        """The readers' matrix products and the formats of their weights."""
        return [
            (product, formats[name])
            for node, formats in self.readers.items()
            for name, product in _products_of(node).items()
            if name in formats
        ]

    def add(self, x: torch.Tensor) -> None:
        """Take note of the tensor's values in one batch."""
        if self.statistics is None:
            self.statistics = ChannelStatistics.empty(x)
        self.statistics.add(x)


def _products_of(node: fx.Node) -> dict[str, nn.Linear]:
    """The matrix products of a node's module, by the name of their weight."""
    weights = named_weights(_module(node))
    return {weight.name: weight.operator for weight in weights if isinstance(weight.operator, nn.Linear)}


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
    weights: defaultdict[str, dict[str, TensorQuantConfig]] = defaultdict(dict)
    for decision in decisions:
        if decision.config and decision.point.kind is PointKind.WEIGHT:
            weights[decision.point.node.name][decision.point.label] = decision.config
    inputs = {d.point: d.config for d in decisions if d.config and d.point.kind is PointKind.INPUT}
    groups: dict[fx.Node, _Group] = {}
    for point, config in inputs.items():
        node = nodes[point.node.name]
        formats = {name: weights[node.name][name] for name in _products_of(node) if name in weights[node.name]}
        if point.index != 0 or not formats:
            continue
        source = argument_at(node, 0)
        assert isinstance(source, fx.Node)  # points are where tensors flow in
        group = groups.setdefault(source, _Group(source, config))
        group.readers[node] = formats
        given = argument_at(point.node, 0)  # in the model that was passed, whose modules selectors may be
        norm = _norm_before(given)[0] if isinstance(given, fx.Node) else source
        for selector in exceptions:
            if selects(selector, point) or _selects_node(selector, norm):
                group.problem = f"skip: {describe_selector(selector)}"
    calls = _calls_of_parts(model)
    for group in groups.values():
        for node, formats in group.readers.items():
            for name in formats:
                count = calls[_products_of(node)[name]]
                if group.problem is None and count > 1:
                    group.problem = (
                        f"the product in {node.target} is called {count} times, and its weight cannot make up for a "
                        "division at each call"
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
    """The node that computes a value, through dropout and casts, and whether all on the way has one reader only."""
    single = True
    while _is_dropout(source) or _is_cast(source):
        source = source.args[0] if _is_cast(source) else source.all_input_nodes[0]  # type: ignore[assignment]  # a node
        single = single and len(source.users) == 1
    return source, single


def _is_dropout(node: fx.Node) -> bool:
    dropped = isinstance(get_module(node), nn.Dropout) if node.op == "call_module" else operation(node) == "dropout"
    return dropped and len(node.all_input_nodes) == 1


def _is_cast(node: fx.Node) -> bool:
    """Whether a node only changes the type of a tensor, which is a matter of rounding."""
    return is_cast(node) and bool(node.args) and isinstance(node.args[0], fx.Node)


@torch.no_grad()
def _measure(model: fx.GraphModule, groups: list[_Group], data: CalibrationData, *, progress: bool) -> None:
    """Find the largest magnitude of each channel of each group's input, and which products read it."""
    watches = [(group, node, _watch(group, node)) for group in groups for node in group.readers]
    try:
        with evaluation_mode(model), buffers_kept(model):
            run_data(model, data, progress=progress)
    finally:
        for _, _, watch in watches:
            watch.remove()
    for group, node, watch in watches:
        group.readers[node] = {name: group.readers[node][name] for name in group.readers[node] if name in watch.reads}
        problem = watch.problem
        if not watch.reads:
            problem = "the data never reaches it, or the module does not feed its input to its product"
        if group.problem is None and problem is not None:
            group.problem = problem if len(group.readers) == 1 else f"{node.target}: {problem}"


def _watch(group: _Group, node: fx.Node) -> ReaderWatch:
    products = {name: product for name, product in _products_of(node).items() if name in group.readers[node]}
    first = next(iter(group.readers))
    return ReaderWatch(_module(node), products, group.add if node is first else lambda _: None)


@torch.no_grad()
def _smooth_group(model: fx.GraphModule, group: _Group, config: SmoothQuantConfig) -> str:
    if group.problem is not None or group.statistics is None:
        return f"declined: {group.problem}"
    if config.alpha is None:
        scale = best_migration_scale(group.statistics, group.config, group.products)
    else:
        scale = migration_scale(group.statistics, group.products, config.alpha)
    if scale is None:
        return "declined: no migration strength would lessen the error"
    place = _divide(model, group, scale, config)
    if not place.startswith("declined"):
        for node, formats in group.readers.items():
            for name in formats:
                _scale_columns(node, name, scale)
    return place


def _divide(model: fx.GraphModule, group: _Group, scale: torch.Tensor, config: SmoothQuantConfig) -> str:
    """Divide the group's input; returns where that was done."""
    before, single = _norm_before(group.source)
    alone = set(group.source.users) == set(group.readers) and times_read(group.source) == len(group.readers)
    problem = _fold(model, before, 1 / scale) if alone and single else "other operators read its output"
    if problem is None:
        return f"folded into {before.target}"
    if alone and single and operation(before) == "mul":
        for factor in _factors_of(before):
            if _fold(model, factor, 1 / scale) is None:
                return f"folded into {factor.target}"
    if not config.explicit:
        return f"declined: cannot be folded into {before.name} ({problem})"
    path = insert_scale(model, group.source, list(group.readers), 1 / scale)
    return f"by {path}, because it cannot be folded into {before.name} ({problem})"


def _fold(model: fx.GraphModule, node: fx.Node, factors: torch.Tensor) -> str | None:
    """Multiply what a node gives by factors, in the parameters of its module; returns why it cannot be done."""
    module = get_module(node)
    if node.op == "call_module" and not _called_once(model, node):
        return "other operators read its output"
    if module is not None and any(has_hooks(part) for part in module.modules()):
        return "it has hooks, which may not let factors through"
    return module.scale_outputs(factors) if isinstance(module, FusedModule) else "it is no fused module"


def _factors_of(product: fx.Node) -> list[fx.Node]:
    """The nodes that compute the factors of a product and nothing else, as many channels as it has; the last first.

    A gated layer multiplies an activation, which lets no factors through, by a product, which does.
    """
    found, channels = [], _channels(product)
    for value in reversed(product.all_input_nodes):
        before, single = _norm_before(value)
        if single and times_read(value) == 1 and channels is not None and _channels(value) == channels:
            found.append(before)
    return found


def _channels(node: fx.Node) -> int | None:
    """The size of the last axis, where it is known."""
    shape = shape_of(node)
    return shape[-1] if shape else None


def insert_scale(model: fx.GraphModule, source: fx.Node, readers: list[fx.Node], factors: torch.Tensor) -> str:
    """Multiply the channels of the first argument of some nodes, which is ``source``; returns the multiplier's path."""
    first = min(readers, key=list(model.graph.nodes).index)
    with model.graph.inserting_before(first):
        node = add_call(model, f"{source.name}_smooth", ChannelScale(factors.to(device_of(model))), source)
    for reader in readers:
        set_argument(reader, 0, node)
    return str(node.target)


def _called_once(model: fx.GraphModule, node: fx.Node) -> bool:
    return [other.target for other in model.graph.nodes if other.op == node.op].count(node.target) == 1


def _scale_columns(node: fx.Node, name: str, scale: torch.Tensor) -> None:
    operator = _products_of(node)[name]
    scaled = with_parameters(operator, operator.weight * scale, operator.bias)
    for owner in list(_module(node).modules()):
        owner._modules.update({key: scaled for key, part in owner._modules.items() if part is operator})
