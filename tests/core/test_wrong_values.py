"""Every public function, method and constructor with a catalogue of wrong values for each parameter.

A value that the annotation does not allow is refused in our own words, which name the parameter or quote the value. One
that it allows may still be refused in our own words; nothing else may be raised. What an annotation allows is said here
once more, by the class that it names, so that the mechanism is not its own judge.
"""

import enum
import importlib
import inspect
import os
import re
import typing
from collections import abc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
import torch.distributed as dist
from handbook.api import ROOMS as PUBLIC_ROOMS
from torch import fx, nn

from embedl_deploy import get_transformation_plan, transform
from embedl_deploy.backend import LoadedEngine, PointKind, Severity
from embedl_deploy.capture import Trace
from embedl_deploy.engine import Device, EngineLayer, EngineReport, LayerKind
from embedl_deploy.errors import EmbedlDeployError
from embedl_deploy.float16.report import Float16Limit
from embedl_deploy.graph import NoModuleFormError
from embedl_deploy.graph.checkpoint import Checkpoint
from embedl_deploy.modules import FusedMatmul, WeightFakeQuantize
from embedl_deploy.patterns import MatchStatus, Pattern, PatternMatch, QDQPoint, TreeMatch
from embedl_deploy.plan import TransformationPlan, TransformationReport
from embedl_deploy.quantize import (
    Precision,
    QuantConfig,
    Quantizer,
    TensorQuantConfig,
    quantization_recipe,
    quantize,
)
from embedl_deploy.validation.quoting import quoted
from embedl_deploy.verify import Difference
from support import small_patterns
from support.engines import layer, report
from support.running_engines import Adding

#: Those of the core that hold functions; the command line's are tried with texts.
ROOMS = [
    room
    for room in PUBLIC_ROOMS
    if not re.match(r"embedl_deploy(_sensai_stub|_onnxruntime|\.(tensorrt|cli|errors))\b", room)
]

CATALOGUE: dict[str, Any] = {
    "None": None,
    "'no'": "no",
    "''": "",
    "b''": b"",
    "True": True,
    "np.True_": np.True_,
    "0": 0,
    "-1": -1,
    "np.int64(3)": np.int64(3),
    "10**30": 10**30,
    "0.5": 0.5,
    "nan": float("nan"),
    "inf": float("inf"),
    "[]": [],
    "()": (),
    "{}": {},
    "[object()]": [object()],
    "{object(): object()}": {object(): object()},
    "object()": object(),
    "a class": int,
    "a function": lambda *args: None,
    "a tensor": torch.zeros(2, 3),
    "an array": np.zeros((2, 3)),
    "a module": nn.ReLU(),
}

_WHOLE = {"0", "-1", "np.int64(3)"}
#: What an annotation allows of the catalogue, by the class that it names; of a class that is not here, nothing.
ALLOWED: dict[Any, set[str]] = {
    type(None): {"None"},
    bool: {"True", "np.True_"},
    int: _WHOLE,
    float: {*_WHOLE, "0.5", "inf"},
    str: {"'no'", "''"},
    bytes: {"b''"},
    os.PathLike: {"'no'"},
    Path: {"'no'"},
    abc.Callable: {"a class", "a function", "a module"},
    abc.Sequence: {"[]", "()"},
    list: {"[]"},
    tuple: {"[]", "()"},
    abc.Collection: {"[]", "()", "{}"},
    abc.Iterable: {"[]", "()", "{}"},
    abc.Mapping: {"{}"},
    dict: {"{}"},
    nn.Module: {"a module"},
    torch.Tensor: {"a tensor"},
}
#: What is refused although the annotation allows it.
OUT_OF_RANGE = {
    "TensorQuantConfig:percentile": {"0", "-1", "inf"},
    "TensorQuantConfig:block_size": {"0", "-1"},
    "TensorQuantConfig:axis": _WHOLE,  # without per_channel
    "TensorQuantConfig:n_bits": _WHOLE,
    "SmoothQuantConfig:alpha": {"-1", "np.int64(3)", "inf"},
    "CompileOptions:workspace": {"0", "-1"},
    "CompileOptions:timeout": {"0", "-1", "inf"},
    "CompileOptions:threads": {"0", "-1"},
    "EngineLayer:seconds": {"-1", "inf"},
    "Timing:threads": {"0", "-1"},
    "Wildcard:max_count": {"0", "-1"},
    "quantize:smooth_quant": {"-1", "np.int64(3)", "inf"},
    "quantize:data": {"a class"},
    "calibrate:data": {"a class"},
}
#: Run while a model runs, where tracers pass stand-ins for tensors.
IN_MODELS = {
    "open_unseen_rows", "join_heads", "FusedConv.convolve", "FusedMatmul.project", "MHAInProjection.split",
    "SwinAttention.weights", "SwinAttention.attend", "SwinWindowPartition.pads",
    *(f"ScaledDotProductAttention.{part}" for part in ("spread", "scaled", "weights", "masked", "joined")),
}  # fmt: skip
#: What core calls and plugins or torch define, and what pytest calls.
NOT_CALLED_BY_PEOPLE = re.compile(
    r"((Compiler|LoadedEngine|Rule|LeafTracer)\..*|.*Pattern\.(check|match|replace)|pytest_.*|.*\.forward|.*(scale|shift)_outputs|.*center_input|.*set_grid)$"
)
#: Constructors of torch and of pluggy.
OTHERS = {
    "AttentionMask",
    "ConvertedModule",
    "FrozenBatchNorm2d",
    "FusedModule",
    "PaddedConv2d",
    "FrozenBatchNorm2d.train",
    "hookimpl",
}
#: Take long, or change the process: values that they may take are not tried.
REFUSALS_ONLY = {
    "transform", "get_transformation_plan", "load_transformation_plan", "apply_transformation_plan", "export_onnx",
    "compile", "check", "quantize", "calibrate", "verify_stages", "new_backend", "set_backend", "use_backend",
    "register_form", "run_unchanged", "insert_call", "replace_match", "replace_tree", "claim_container", "patterns_in",
    "rules_in", "keep_in_float32",
}  # fmt: skip


_ARGS = {"None", "()", "[]", "a tensor", "[object()]"}
#: What is allowed of parameters that the function itself looks at: their annotation is ``Any``.
BY_HAND = {
    **{
        f"{name}:model": {"a module"}
        for name in ("transform", "get_transformation_plan", "load_transformation_plan", "capture")
    },
    **{
        f"{name}:args": _ARGS
        for name in ("transform", "get_transformation_plan", "load_transformation_plan", "quantize")
    },
    **{f"{name}:args": _ARGS - {"None"} for name in ("export_onnx", "verify_stages")},
}


class FusedLinearTanh(FusedMatmul):
    def __init__(self, linear: nn.Linear, tanh: nn.Tanh) -> None:
        super().__init__(linear)
        self.tanh = tanh

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.tanh(self.project(x))


class LinearTanhPattern(Pattern):
    tree = (nn.Linear, nn.Tanh)
    qdq_points = frozenset({QDQPoint.INPUT})
    graft = FusedLinearTanh


def public() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Every public function and class that is called, and the public methods of those classes, by room and name."""
    seen = set()
    for room in ROOMS:
        namespace = importlib.import_module(room)
        for name in getattr(namespace, "__all__", ()):
            value = getattr(namespace, name)
            if id(value) in seen or not (inspect.isroutine(value) or inspect.isclass(value)):
                continue
            seen.add(id(value))
            yield f"{room}:{name}", value
            if inspect.isclass(value):
                for method, definition in vars(value).items():
                    if not method.startswith("_") and isinstance(definition, (classmethod, staticmethod, type(public))):
                        yield f"{room}:{name}.{method}", getattr(value, method)


def is_tried(name: str, function: Callable[..., Any]) -> bool:
    if inspect.isclass(function) and issubclass(function, (enum.Enum, BaseException)):
        return False  # Python makes the first, and we the second
    if name in IN_MODELS | OTHERS or NOT_CALLED_BY_PEOPLE.match(name):
        return False
    return bool(parameters_of(function))


def parameters_of(function: Callable[..., Any]) -> list[inspect.Parameter]:
    return [each for each in inspect.signature(function).parameters.values() if each.name != "self"]


PUBLIC = {name: function for name, function in public() if is_tried(name.partition(":")[2], function)}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[Any, Any]:
    """A value for every class that an annotation of a required parameter names, and for some parameters by name."""
    x = torch.ones(2, 4)
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh()).eval()
    pattern = LinearTanhPattern()
    plan = get_transformation_plan(model, x, patterns=[pattern])
    result = transform(model, x, patterns=[pattern])
    quantized = quantize(result, [x], progress=False)
    (match,) = (match for found in plan.matches.values() for match in found.values())
    value = ir.Value(name="x", shape=ir.Shape([2, 4]), type=ir.TensorType(ir.DataType.FLOAT))
    node = ir.Node("", "Relu", [value], name="relu")
    onnx_model = ir.Model(ir.Graph([value], node.outputs, nodes=[node], opset_imports={"": 18}), ir_version=10)
    onnx_path = tmp_path_factory.mktemp("good") / "a.onnx"
    ir.save(onnx_model, onnx_path)
    engine = report(layer("a"))
    call = next(node for node in result.model.graph.nodes if node.op == "call_module")
    by_class = [
        (nn.Module, model), (fx.GraphModule, result.model), (fx.Node, call), (Pattern, pattern), (PatternMatch, match),
        (TransformationPlan, plan), (TransformationReport, result.report), (EngineReport, engine),
        (EngineLayer, engine.layers[0]), (TreeMatch, match.tree_match),
        (Quantizer, Quantizer(TensorQuantConfig(), "x")),
        (nn.Linear, nn.Linear(4, 4)), (nn.Embedding, nn.Embedding(4, 4)), (nn.Conv2d, nn.Conv2d(4, 4, 1)),
        (torch.Tensor, torch.ones(4)),
        (Device, Device("d", "t", 1.0, {}, "s")), (Difference, Difference(0.0, 0.0)), (Severity, Severity.ERROR),
        (MatchStatus, MatchStatus.PLANNED), (PointKind, PointKind.INPUT), (LayerKind, LayerKind.GEMM), (Trace, "auto"),
        (Float16Limit, Float16Limit.SUM), (torch.dtype, torch.int8),
        (LoadedEngine, Adding([])), (nn.LayerNorm, nn.LayerNorm(4)), (nn.RMSNorm, nn.RMSNorm(4)),
        (Precision, Precision.INT8), (dist.ProcessGroup, dist.ProcessGroup(dist.HashStore(), 0, 1)),
        (Checkpoint, plan.captured), (WeightFakeQuantize, WeightFakeQuantize()), (str, "a"), (int, 1), (float, 1.0),
        (bool, True), (bytes, b"a"), (Path, Path("a")), (os.PathLike, Path("a")), (dict, {}), (list, []), (tuple, ()),
        (abc.Mapping, {}), (abc.Sequence, ()), (abc.Collection, ()), (abc.Callable, lambda *args: None),
        (type(None), None), (torch.export.ExportedProgram, torch.export.export(model, (x,))),
        ("ir.Node", node), ("ir.Value", value), ("ir.Model", onnx_model), ("onnx.ModelProto", ir.to_proto(onnx_model)),
    ]  # fmt: skip
    by_name = {
        "quantization_recipe:model": quantized,
        "PatternMatch:pattern": pattern,
        "match_tree:pattern": pattern,
        "validate_pattern:pattern": pattern,
        "model": model,
        "args": (x,),
        "default": None,
        "kwargs": {},
        "patterns_in:package": small_patterns,
        "rules_in:package": small_patterns,
        "behaves_as:base": nn.Linear,
        "resolve_module:cls": nn.Linear,
        "register_form:operation": "x",
        "module_class": nn.ReLU,
        "scaled_norm:norm": nn.LayerNorm(4),
        **{
            f"SwinWindow{each}:{size}_size": (1, 1) for each in ("Partition", "Reverse") for size in ("window", "shift")
        },
        "with_parameters:module": nn.Linear(4, 4),
        "join": torch.add,
        "elements": nn.ReLU,
        "other": QuantConfig(),
        "Backend.quantization_config:kind": QuantConfig,
        "reference": x,
        "difference:other": x,
        "signal_to_noise:other": x,
        "output": x,
        "conv2d_with:weight": nn.Parameter(torch.ones(4, 4, 1, 1)),
        "weight": nn.Parameter(torch.ones(4, 4)),
        "transform:patterns": [pattern],
        "get_transformation_plan:patterns": [pattern],
        "capture:model": model,
        "load_transformation_plan:patterns": [pattern],
        "load_transformation_plan:text": plan.to_json(),
        "PatternMatch:tree_match": match.tree_match,
        "quantize:data": [x],
        "check:model": onnx_model,
        "QuantizationRecipe.from_json:text": quantization_recipe(quantized).to_json(),
        "calibrate:data": [x],
        "compile:onnx_path": onnx_path,
        "compile:backend": "tensorrt",
        "check:backend": "tensorrt",
        "export_onnx:path": "a.onnx",
        "EngineReport.from_dict:plain": engine.to_dict(),
        "EngineLayer.from_dict:plain": engine.layers[0].to_dict(),
        "compare_models:reference": model,
        "compare_models:other": model,
        "verify_stages:reference": model,
        "PaddedConv2d.of:sides": (0, 0, 0, 0),
        "ModuleDifference:kernels": (1, 1),
        "ModuleDifference:activation_bytes": (1, 1),
        "QuantStub:quantizer": None,
        "Timing:seconds": (1.0,),
        "Fork:branches": (),
    }
    return {**dict(by_class), **by_name}


def arms_of(annotation: Any) -> list[Any]:
    """The alternatives of an annotation; those that are imported for type checkers only stay strings."""
    if isinstance(annotation, typing.ForwardRef):
        annotation = annotation.__forward_arg__
    if isinstance(annotation, str):
        return [type(None) if arm == "None" else arm for arm in annotation.split(" | ")]
    if typing.get_origin(annotation) in (typing.Union, type(int | None)):
        return [inner for arm in typing.get_args(annotation) for inner in arms_of(arm)]
    return [annotation]


def allowed_by(annotation: Any) -> set[str]:
    arms = arms_of(annotation)
    if any(arm in (Any, object, inspect.Parameter.empty) or isinstance(arm, typing.TypeVar) for arm in arms):
        return set(CATALOGUE)
    classes = [typing.get_origin(arm) or arm for arm in arms]
    if os.PathLike in classes or any(inspect.isclass(each) and issubclass(each, enum.Enum) for each in classes):
        classes = [object() if each is str else each for each in classes]
    allowed: set[str] = set()
    for arm, kind in zip(arms, classes, strict=True):
        fixed = kind is tuple and Ellipsis not in typing.get_args(arm)
        allowed |= set() if fixed else ALLOWED.get(kind, set())
        if kind is type and isinstance(typing.get_args(arm)[0], typing.TypeVar):
            allowed |= {"a class"}
        if Any in typing.get_args(arm):
            allowed |= {"[object()]"} if kind in (list, tuple, abc.Sequence, abc.Iterable) else set()
            allowed |= {"{object(): object()}", "an array"} if kind is abc.Iterable else set()
    return allowed


def is_told(name: str, value: Any, message: str) -> bool:
    value = value.item() if isinstance(value, np.generic) else value
    return re.search(rf"\b{name}\b", message) is not None or quoted(value) in message


def value_for(name: str, parameter: inspect.Parameter, good: dict[Any, Any]) -> Any:
    kinds = [typing.get_origin(arm) or arm for arm in arms_of(parameter.annotation)]
    for key in (f"{name}:{parameter.name}", *kinds, parameter.name):
        if key in good:
            return good[key]
        if key in PUBLIC.values():
            return instance_of(key, good)
    return pytest.fail(f"{name} is public: give the fixture `good` a value for its parameter {parameter}.")


def instance_of(kind: type, good: dict[Any, Any]) -> Any:
    return good[kind] if kind in good else call_of(kind.__name__, kind, good)()


def call_of(name: str, function: Callable[..., Any], good: dict[Any, Any]) -> Callable[..., Any]:
    """The function, to be called with good values for all parameters but those that are given."""
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())
    required = {
        each.name: value_for(name, each, good)
        for each in parameters
        if (each.default is each.empty or f"{name}:{each.name}" in good)
        and each.name != "self"
        and each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)
    }
    if parameters[0].name == "self":
        (owner,) = (kind for key, kind in public() if key.endswith(f":{name.partition('.')[0]}"))
        required["self"] = instance_of(owner, good)
    further = {each.name for each in parameters if each.kind is each.VAR_POSITIONAL}
    named = {each.name for each in parameters if each.kind is each.VAR_KEYWORD}

    def call(**given: Any) -> Any:
        bound = signature.bind_partial()
        for each, value in {**required, **given}.items():
            bound.arguments[each] = (value,) if each in further else {"further": value} if each in named else value
        return function(*bound.args, **bound.kwargs)

    return call


def complaint(call: Callable[..., Any], parameter: str, value: Any, *, is_allowed: bool) -> str | None:
    """What is wrong about a call with this value; ``None`` if nothing is."""
    try:
        call(**{parameter: value})
    except (EmbedlDeployError, NoModuleFormError) as error:
        return None if is_allowed or is_told(parameter, value, str(error)) else f"does not name it: {error}"
    except Exception as error:  # noqa: BLE001 - which is what must not happen
        return f"raises {type(error).__name__}: {error}"
    return None if is_allowed else "is accepted"


@pytest.mark.parametrize("called", PUBLIC)
def test_wrong_values(called, good, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name, function = called.partition(":")[2], PUBLIC[called]
    call = call_of(name, function, good)
    wrong = []
    for parameter in parameters_of(function):
        where = f"{name}:{parameter.name}"
        allowed = BY_HAND.get(where, allowed_by(parameter.annotation)) - OUT_OF_RANGE.get(where, set())
        for label, value in CATALOGUE.items():
            if label in allowed and name in REFUSALS_ONLY:
                continue
            said = complaint(call, parameter.name, value, is_allowed=label in allowed)
            if said is not None:
                wrong.append(f"{where} = {label} {said}")
    assert not wrong, "\n".join(wrong)
