"""Recipes: how a model was quantized, as readable JSON, and rebuilding the same structure from it.

A recipe holds no tensors: those are in the ``state_dict``. The two together restore a quantized model in a process that
has only the original one, whatever calibration, smoothing or training it went through.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import fx, nn

from embedl_deploy.errors import QuantizationError
from embedl_deploy.graph.edit import deep_copy
from embedl_deploy.graph.lookup import get_module
from embedl_deploy.json_text import NotJsonError, parse_json
from embedl_deploy.modules import ChannelScale, FusedConv, FusedModule, named_weights
from embedl_deploy.numerics.points import PointKind, QuantPoint
from embedl_deploy.numerics.tensor_config import TensorQuantConfig
from embedl_deploy.pipeline import BACKEND
from embedl_deploy.plan.result import TransformationResult
from embedl_deploy.quantize.accuracy.channel_scaling import insert_scale
from embedl_deploy.quantize.calibration.calibrate import quantizers_of
from embedl_deploy.quantize.freezing import freeze
from embedl_deploy.quantize.grid.scales import grid_from_range, grid_like_that_of
from embedl_deploy.quantize.ownership import make_missing, own_modules, own_tensors, shared_modules, tensors_of
from embedl_deploy.quantize.placing.decisions import Decision
from embedl_deploy.quantize.placing.placement import place
from embedl_deploy.quantize.placing.quantizer import IntegerWeight
from embedl_deploy.quantize.reporting.causes import PointCause, WhyPoint
from embedl_deploy.quantize.reporting.report import REPORT, as_recorded, quantization_report
from embedl_deploy.validation.checked import checked

FORMAT = "embedl-deploy/quantization"
VERSION = 1


@checked
@dataclass(frozen=True)
class QuantizationRecipe:
    """Everything that decides the structure of a quantized model.

    Attributes:
        backend: What the model was transformed for; ``None`` for a list of patterns.
        policy: The policy that was asked.
        points: What became of each point, in graph order: node, path, kind, index, label, config (plain settings, or
            ``None``), rule, and cause, the kind of rule.
        scaled: Explicit channel scales: source node, readers.
        folded: Paths of convolutions without batch norm.
        tensors: The shape of every tensor by name, or, where it was told under another name, that name.
        shared: Modules that live at a second path, and the first one.
        frozen: Whether weights are stored as integers.
        corrections: What was done to keep accuracy: what, where, outcome and cause; for the record.
    """

    backend: str | None
    policy: str
    points: tuple[dict[str, Any], ...]
    scaled: tuple[dict[str, Any], ...]
    folded: tuple[str, ...]
    tensors: dict[str, str]
    shared: dict[str, str]
    frozen: bool
    corrections: tuple[dict[str, str | None], ...]

    def to_json(self) -> str:
        """The recipe as text; :meth:`from_json` reads it."""
        return json.dumps({"format": FORMAT, "version": VERSION, **asdict(self)}, indent=2, ensure_ascii=False)

    @staticmethod
    @checked
    def from_json(text: str) -> "QuantizationRecipe":
        """Read what :meth:`to_json` gave.

        Raises:
            QuantizationError: It is not JSON, not a recipe, or one of another version.
        """
        try:
            data = parse_json(text)
        except (TypeError, NotJsonError) as error:
            raise QuantizationError(
                f"The recipe is not valid JSON: {error}. Pass what recipe.to_json() gave."
            ) from error
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise QuantizationError(f'The JSON is not a recipe: expected an object with "format": {FORMAT!r}.')
        if data.get("version") != VERSION:
            raise QuantizationError(
                f"The recipe has version {data.get('version')!r}; this release reads version {VERSION}."
            )
        fields = {key: value for key, value in data.items() if key not in ("format", "version")}
        expected = set(QuantizationRecipe.__dataclass_fields__)
        if set(fields) != expected:
            wrong = ", ".join(sorted(set(fields) ^ expected))
            raise QuantizationError(f"The recipe has missing or unknown entries: {wrong}.")
        for key in ("points", "scaled", "folded", "corrections"):
            if not isinstance(fields[key], list):
                raise QuantizationError(f"The recipe's {key!r} is {fields[key]!r}; expected a list.")
            fields[key] = tuple(fields[key])
        for key in ("tensors", "shared"):
            named = fields[key]
            if not isinstance(named, dict) or not all(isinstance(value, str) for value in named.values()):
                raise QuantizationError(f"The recipe's {key!r} is {named!r}; expected texts by name.")
        return QuantizationRecipe(**fields)

    @checked
    def rebuild(self, model: fx.GraphModule | TransformationResult) -> fx.GraphModule:
        """Give a freshly transformed model the structure that the recipe describes. Load the ``state_dict`` next.

        Args:
            model: The original model, transformed by the same patterns. Not modified.

        Raises:
            InputError: It is not a transformed model.
            QuantizationError: It has other nodes than the model that the recipe was made from.
        """
        graph_module = model.model if isinstance(model, TransformationResult) else model
        graph_module = deep_copy(graph_module)
        nodes = {node.name: node for node in graph_module.graph.nodes}
        decisions = [_decision(entry, nodes) for entry in self.points]
        for entry in self.scaled:
            source, *readers = (_node(nodes, name) for name in (entry["source"], *entry["readers"]))
            dtype = getattr(torch, entry.get("dtype", "float32"))  # earlier recipes are of models in float32
            insert_scale(graph_module, source, readers, torch.ones(entry["channels"], dtype=dtype))
        for path in self.folded:
            _module(graph_module, path, FusedConv).fold_batch_norm()
        own_modules(graph_module, self.tensors, self.shared)
        quantized = place(graph_module, decisions, self.policy)
        quantized.meta[REPORT] = as_recorded(quantization_report(quantized), self.points, self.corrections)
        make_missing(quantized, self.tensors)
        quantized = freeze(_with_grids(quantized)) if self.frozen else quantized
        own_tensors(quantized, self.tensors)
        return quantized


@checked
def quantization_recipe(model: fx.GraphModule) -> QuantizationRecipe:
    """The recipe of a quantized model, calibrated or not, in training or frozen.

    Raises:
        QuantizationError: The model has no quantizers.
    """
    report = quantization_report(model)
    points = tuple(
        {
            "node": point.node,
            "path": point.path,
            "kind": point.kind.value,
            "index": point.index,
            "label": point.label,
            "config": None if point.format is None else point.format.to_dict(),
            "rule": point.rule,
            "cause": None if point.cause is None else point.cause.value,
        }
        for point in report.points
    )
    modules = {point.path: model.get_submodule(point.path) for point in report.points}
    scaled = []
    for node in model.graph.nodes:
        module = get_module(node) if node.op == "call_module" else None
        if isinstance(module, ChannelScale):
            readers = [reader for user in node.users for reader in _behind_stubs(user)]
            names = [reader.name for reader in readers]
            factors = module.factors
            scaled.append(
                {
                    "source": node.all_input_nodes[0].name,
                    "readers": names,
                    "channels": factors.numel(),
                    "dtype": str(factors.dtype).removeprefix("torch."),
                }
            )
    return QuantizationRecipe(
        backend=model.meta.get(BACKEND),
        policy=report.policy,
        points=points,
        scaled=tuple(scaled),
        folded=tuple(
            _joined(path, inner)
            for path, module in modules.items()
            for inner, part in module.named_modules()
            if isinstance(part, FusedConv) and part.bn is None
        ),
        tensors=tensors_of(model),
        shared=shared_modules(model),
        frozen=any(isinstance(part, IntegerWeight) for part in model.modules()),
        corrections=tuple(correction.to_dict() for correction in report.corrections),
    )


def _joined(path: str, inner: str) -> str:
    return f"{path}.{inner}" if inner else path


def _behind_stubs(node: fx.Node) -> list[fx.Node]:
    """The node itself, or, of a stub that quantization has inserted, what reads it."""
    module = get_module(node) if node.op == "call_module" else None
    return [node] if isinstance(module, FusedModule) else list(node.users)


def _node(nodes: dict[str, fx.Node], name: str) -> fx.Node:
    if name not in nodes:
        raise QuantizationError(
            f"The recipe names node {name!r}, which the model does not have. Rebuild from the model that the recipe "
            "was made from, transformed by the same patterns."
        )
    return nodes[name]


def _decision(entry: dict[str, Any], nodes: dict[str, fx.Node]) -> Decision:
    try:
        node, path = _node(nodes, entry["node"]), entry["path"]
        kind, index, label = PointKind(entry["kind"]), entry["index"], entry["label"]
        config = None if entry["config"] is None else TensorQuantConfig.from_dict(entry["config"])
        if not isinstance(entry["rule"], str):
            raise TypeError(f"rule is {entry['rule']!r}")
    except (KeyError, TypeError, ValueError) as error:
        raise QuantizationError(f"The recipe has a broken point {entry!r}: {type(error).__name__}: {error}.") from error
    module = get_module(node) if node.op == "call_module" else None
    if module is None or str(node.target) != path:
        raise QuantizationError(
            f"The recipe has a point at {path!r}, but node {node.name!r} calls {node.target!r}. Rebuild from the model "
            "that the recipe was made from, transformed by the same patterns."
        )
    return Decision(QuantPoint(node, path, module, kind, index, label), config, PointCause(WhyPoint.RECIPE))


def _module(model: fx.GraphModule, path: str, kind: type[Any]) -> Any:
    try:
        module: nn.Module | None = model.get_submodule(path)
    except AttributeError:
        module = None
    if not isinstance(module, kind):
        found = "nothing" if module is None else f"a {type(module).__name__}"
        raise QuantizationError(f"The recipe needs a {kind.__name__} at {path!r}, where the model has {found}.")
    return module


def _with_grids(quantized: fx.GraphModule) -> fx.GraphModule:
    """Scales of the right shapes, whatever their values: a ``state_dict`` brings those."""
    weights = {weight.stub.quantizer: weight.value for weight in named_weights(quantized)}
    for quantizer in quantizers_of(quantized).values():
        weight = weights.get(quantizer)
        if weight is None:  # an activation, or a weight that no one operator has: it stays in float
            quantizer.set_grid(grid_from_range(-1.0, 1.0, quantizer.config))
        else:
            quantizer.set_grid(grid_like_that_of(weight, quantizer.config))
    return quantized
