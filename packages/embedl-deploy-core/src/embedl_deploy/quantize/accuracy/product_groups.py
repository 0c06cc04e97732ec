"""Groups matrix products that read the same tensor, whose channels are scaled together."""

from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from enum import Enum

import torch
from torch import fx, nn

from embedl_deploy.graph.arguments import argument_at
from embedl_deploy.graph.casts import is_cast
from embedl_deploy.graph.lookup import get_module
from embedl_deploy.graph.operators import operation
from embedl_deploy.modules import named_weights
from embedl_deploy.numerics.points import PointKind, QuantPoint
from embedl_deploy.numerics.selectors import Selector, describe_selector, selects
from embedl_deploy.numerics.tensor_config import TensorQuantConfig
from embedl_deploy.quantize.accuracy.migration import ChannelStatistics
from embedl_deploy.quantize.placing.decisions import Decision
from embedl_deploy.quantize.reporting.corrections import NotCorrected, WhyNotCorrected, not_corrected


class InputsAre(Enum):
    """What will become of the tensor that products read."""

    QUANTIZED = "quantized"
    FLOAT = "float"


@dataclass
class ProductGroup:
    """Products that read one tensor.

    Attributes:
        source: The node whose value they read.
        config: The format of the tensor; ``None`` where it stays in float.
        readers: Calls of their modules, in graph order, with the formats of the modules' products by the weight's
            name: at first of all that could read the tensor, then of those that do.
        statistics: Of the tensor's channels; ``None`` before any data.
        problem: Why the group cannot be scaled.
    """

    source: fx.Node
    config: TensorQuantConfig | None
    readers: dict[fx.Node, dict[str, TensorQuantConfig]] = field(default_factory=dict)
    statistics: ChannelStatistics | None = None
    problem: NotCorrected | None = None

    def copied_to(self, model: fx.GraphModule, problem: NotCorrected | None) -> "ProductGroup":
        """The same group in a copy of the model, not yet scaled; with a problem, if it has none of its own."""
        nodes = {node.name: node for node in model.graph.nodes}
        readers = {nodes[node.name]: formats for node, formats in self.readers.items()}
        return ProductGroup(nodes[self.source.name], self.config, readers, self.statistics, self.problem or problem)

    @property
    def products(self) -> list[tuple[nn.Linear, TensorQuantConfig]]:
        """The readers' matrix products and the formats of their weights."""
        return [
            (product, formats[name])
            for node, formats in self.readers.items()
            for name, product in products_of(node).items()
            if name in formats
        ]

    def add(self, x: torch.Tensor) -> None:
        """Take note of the tensor's values in one batch."""
        if self.statistics is None:
            self.statistics = ChannelStatistics.empty(x)
        self.statistics.add(x)


def products_of(node: fx.Node) -> dict[str, nn.Linear]:
    """The matrix products of a node's module, by the name of their weight."""
    weights = named_weights(module_of(node))
    return {weight.name: weight.operator for weight in weights if isinstance(weight.operator, nn.Linear)}


def module_of(node: fx.Node) -> nn.Module:
    """The module that a call of a group is of."""
    module = get_module(node)
    assert module is not None  # groups are made of calls of modules
    return module


def find_groups(
    model: fx.GraphModule,
    decisions: list[Decision],
    exceptions: tuple[Selector, ...],
    inputs_are: Collection[InputsAre] = (InputsAre.QUANTIZED,),
) -> list[ProductGroup]:
    """The groups of products whose weight is to be quantized.

    Args:
        model: Where the groups are to be.
        decisions: What will be quantized, on this model or the one that it is a copy of.
        exceptions: Selectors of layer norms and products to leave out: a group with one of them has a problem.
        inputs_are: What their inputs are to be.
    """
    nodes = {node.name: node for node in model.graph.nodes}
    weights: defaultdict[str, dict[str, TensorQuantConfig]] = defaultdict(dict)
    for decision in decisions:
        if decision.config and decision.point.kind is PointKind.WEIGHT:
            weights[decision.point.node.name][decision.point.label] = decision.config
    inputs = {
        d.point: d.config
        for d in decisions
        if d.point.kind is PointKind.INPUT
        and (InputsAre.QUANTIZED if d.config is not None else InputsAre.FLOAT) in inputs_are
    }
    groups: dict[tuple[fx.Node, bool], ProductGroup] = {}
    for point, config in inputs.items():
        node = nodes[point.node.name]
        formats = {name: weights[node.name][name] for name in products_of(node) if name in weights[node.name]}
        if point.index != 0 or not formats:
            continue
        source = argument_at(node, 0)
        assert isinstance(source, fx.Node)  # points are where tensors flow in
        group = groups.setdefault((source, config is None), ProductGroup(source, config))
        group.readers[node] = formats
        given = argument_at(point.node, 0)  # in the model that was passed, whose modules selectors may be
        norm = node_before(given)[0] if isinstance(given, fx.Node) else source
        for selector in exceptions:
            if selects(selector, point) or _selects_node(selector, norm):
                group.problem = not_corrected(WhyNotCorrected.SKIPPED, selector=describe_selector(selector))
    calls = _calls_of_parts(model)
    for group in groups.values():
        for node, formats in group.readers.items():
            for name in formats:
                count = calls[products_of(node)[name]]
                if group.problem is None and count > 1:
                    group.problem = not_corrected(
                        WhyNotCorrected.PRODUCT_CALLED_SEVERAL_TIMES, module=node.target, count=count
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


def node_before(source: fx.Node) -> tuple[fx.Node, bool]:
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
