"""Inserts quantizers at the points where the decisions want them."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import fx, nn

from embedl_deploy.errors import QuantizationError
from embedl_deploy.graph.arguments import argument_at, set_argument
from embedl_deploy.graph.edit import add_call, deep_copy
from embedl_deploy.graph.effects import Effects
from embedl_deploy.graph.lookup import get_module
from embedl_deploy.modules import FusedModule, QuantStub
from embedl_deploy.modules.device import device_of
from embedl_deploy.numerics.config import QuantConfig
from embedl_deploy.numerics.points import PointKind, QuantPoint
from embedl_deploy.numerics.selectors import require_selection
from embedl_deploy.numerics.tensor_config import TensorQuantConfig
from embedl_deploy.pipeline import BACKEND
from embedl_deploy.quantize.grid.scales import grid_from_range
from embedl_deploy.quantize.placing.decisions import Decision, decide
from embedl_deploy.quantize.placing.dynamic import make_quantizer
from embedl_deploy.quantize.placing.hardware import choose_policy, complete_config
from embedl_deploy.quantize.placing.hidden import hidden_parts
from embedl_deploy.quantize.placing.inner_graphs import products_inside
from embedl_deploy.quantize.placing.opaque import opaque_calls
from embedl_deploy.quantize.placing.points import patterns_by_node, points_of
from embedl_deploy.quantize.placing.quantizer import Quantizer
from embedl_deploy.quantize.placing.stored_format import StoresFormat
from embedl_deploy.quantize.placing.uncovered import uncovered
from embedl_deploy.quantize.reporting.report import REPORT, PointReport, QuantizationReport
from embedl_deploy.validation.checked import checked


@checked
def insert_qdq(
    model: fx.GraphModule,
    matches: Mapping[str, Any] | None = None,
    config: QuantConfig | None = None,
) -> fx.GraphModule:
    """Insert quantizers into a transformed model; run :func:`calibrate` to set their scales.

    A tensor that several modules read with the same format has one stub. The points are those that patterns
    (``qdq_points``) and modules (``inputs_to_quantize``) both declare, narrowed by the policy and the configuration.

    Args:
        model: A transformed model. Not modified.
        matches: ``result.matches``; without it the modules' own declarations count.
        config: Formats, exceptions and policy; by default those of the backend that the model was transformed for, or
            INT8, symmetric, weights per channel.

    Returns:
        A copy of the model with quantizers; :func:`quantization_report` tells what became of each point.

    Raises:
        InputError: The model is not a graph module, or ``matches`` holds something else.
        QuantizationConfigError: The policy does not exist.
        QuantizationError: The model has quantizers already, or the policy fails.
    """
    return place(model, *decide_for(model, matches, config))


def decide_for(
    model: fx.GraphModule, matches: Mapping[str, Any] | None, config: QuantConfig | None
) -> tuple[list[Decision], str]:
    """What becomes of every point of a model, and the name of the policy that was asked.

    Arguments and errors as for :func:`insert_qdq`.
    """
    if any(isinstance(part, StoresFormat) for part in model.modules()):
        raise QuantizationError("The model has quantizers already. Insert them into the transformed model, once.")
    config = complete_config(config, model.meta.get(BACKEND))
    policy = choose_policy(config, model.meta.get(BACKEND))
    # Selectors may be modules of the model that was passed, so decisions are made on that one.
    points = list(points_of(model, patterns_by_node(matches)))
    _require_selection(model, points, config)
    return decide(points, config, policy), policy.name


def _require_selection(model: fx.GraphModule, points: list[QuantPoint], config: QuantConfig) -> None:
    skip, overrides = config.exceptions, config.overrides or {}
    in_float = [selector for selector, formats in overrides.items() if formats is None]
    formatted = [selector for selector, formats in overrides.items() if formats is not None]
    require_selection(model, points, [*skip.stub, *skip.weight, *skip.smooth, *in_float], formatted)


def place(
    model: fx.GraphModule, decisions: list[Decision], policy: str, copy: Callable[[Any], Any] = deep_copy
) -> fx.GraphModule:
    """A copy of ``model``, made by ``copy``, with quantizers where ``decisions`` have them."""
    copied: fx.GraphModule = copy(model)
    placer = _Placer(copied, model)
    points = []
    for decision in decisions:
        point = decision.point
        node = placer.copied[point.node.name]
        stub = "" if decision.config is None else placer.place(node, decision, decision.config)
        if stub:
            _note_reader(copied.get_submodule(stub), point)
        described = "" if decision.config is None else str(decision.config)
        kind = type(point.module).__name__
        places = (point.path, point.label, node.name, kind, described, str(decision.cause), stub)
        points.append(PointReport(*places, point.kind, point.index, decision.config, decision.cause.why))
    copied.recompile()
    without_place = (
        *uncovered(model, decisions),
        *products_inside(model),
        *hidden_parts(model, decisions),
        *opaque_calls(model, decisions),
    )
    copied.meta[REPORT] = QuantizationReport(tuple(points), without_place, policy)
    return copied


def _note_reader(stub: nn.Module, point: QuantPoint) -> None:
    """Tell a quantizer of a point that it stands at; a module that is called twice has it once."""
    if isinstance(stub, QuantStub) and isinstance(stub.quantizer, StoresFormat):
        reader = f"{point.path} {point.label}"
        stub.quantizer.readers = tuple(dict.fromkeys((*stub.quantizer.readers, reader)))


class _Placer:
    """Puts stubs into one graph, one for each tensor and format.

    A tensor that is overwritten in place is another one for those that read it afterwards.

    Args:
        graph_module: The graph to change.
        original: The graph that it is a copy of, which stays as it is.
    """

    def __init__(self, graph_module: fx.GraphModule, original: fx.GraphModule) -> None:
        self.graph_module = graph_module
        self.shared: dict[tuple[fx.Node, fx.Node | None, TensorQuantConfig], fx.Node] = {}
        self.source_of: dict[fx.Node, fx.Node] = {}
        self.effects = Effects(original.graph)
        self.original = {node.name: node for node in original.graph.nodes}
        self.copied = {node.name: node for node in graph_module.graph.nodes}

    def place(self, node: fx.Node, decision: Decision, config: TensorQuantConfig) -> str:
        """Fill or insert the stub of one point, and return its path."""
        point, module = decision.point, get_module(node)
        assert module is not None  # points are at module calls
        path = str(node.target)
        if point.kind is PointKind.WEIGHT:
            weight = point.weight
            assert weight is not None  # points_of has looked
            return self._fill(module, path, weight.place, config, f"{path} {weight.name}", is_weight=True)
        if point.kind is PointKind.INNER:
            return self._fill(module, path, point.label, config, f"{path} {point.label}")
        if point.kind is PointKind.OUTPUT:
            return self._in_graph(node, None, config, users=set(node.users))
        stub = module.input_quant_stubs.get(point.index) if isinstance(module, FusedModule) else None
        own = next((name for name, part in module.named_modules() if part is stub), None) if stub else None
        if own:
            return self._fill(module, path, own, config, f"{path} {own}")
        argument = argument_at(node, point.index)
        assert isinstance(argument, fx.Node)  # points_of has looked
        source = self.source_of.get(argument, argument)
        written = self._written(source, self.original[node.name])
        target = self._in_graph(source, written, config, users=set())
        quantized = self.shared[(source, written, config)]
        set_argument(node, point.index, quantized)
        if isinstance(module, FusedModule):
            module.input_quant_stubs[point.index] = self.graph_module.get_submodule(target)  # type: ignore[assignment]
        return target

    def _fill(
        self, module: nn.Module, path: str, place: str, config: TensorQuantConfig, name: str, *, is_weight: bool = False
    ) -> str:
        stub = module.get_submodule(place)
        assert isinstance(stub, QuantStub)  # points_of has looked
        if stub.quantizer is None:  # a module that is called twice has been here before
            stub.quantizer = make_quantizer(config, name, is_weight=is_weight).to(device_of(module, self.graph_module))
            _fix_range(stub)
        return f"{path}.{place}"

    def _written(self, source: fx.Node, reader: fx.Node) -> fx.Node | None:
        """The last node that changes ``source`` in place before ``reader``, a node of the original, reads it."""
        writer = self.effects.last_write(self.original[source.name], before=reader)
        return None if writer is None else self.copied[writer.name]

    def _in_graph(
        self, source: fx.Node, written: fx.Node | None, config: TensorQuantConfig, users: set[fx.Node]
    ) -> str:
        """Insert a stub for ``source`` as ``written`` left it, unless there is one, and return its path."""
        key = (source, written, config)
        if key not in self.shared:
            name = f"{source.name}_quant"
            near = [module for node in (source, *users) if (module := get_module(node)) is not None]
            device = device_of(*near, self.graph_module)
            stub = QuantStub(make_quantizer(config, f"the output of {source.name}").to(device))
            object.__setattr__(stub, "training", self.graph_module.training)
            with source.graph.inserting_after(_last_placeholder(written or source)):
                node = add_call(self.graph_module, name, stub, source)
            self.shared[key] = node
            self.source_of[node] = source
        quantized = self.shared[key]
        for user in users - set(self.source_of):
            user.replace_input_with(source, quantized)
        return str(quantized.target)


def _last_placeholder(node: fx.Node) -> fx.Node:
    """The node after which a reader of ``node`` may stand: inputs stay together at the start."""
    if node.op != "placeholder":
        return node
    while node.next.op == "placeholder":
        node = node.next
    return node


def _fix_range(stub: QuantStub) -> None:
    if stub.amax is not None and isinstance(stub.quantizer, Quantizer):
        stub.quantizer.set_grid(grid_from_range(0.0, stub.amax, stub.quantizer.config))
