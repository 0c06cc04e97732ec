"""The engine's file: the optimized model, with what it was made for."""

import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx

#: Where the file says what it is.
_TARGET, _VERSION = "embedl_deploy.onnxruntime.target", "embedl_deploy.onnxruntime.version"
_NODES = "embedl_deploy.onnx_nodes"
#: Layouts that depend on the width of the processor's vectors.
_BLOCKED = "com.microsoft.nchwc"


@dataclass(frozen=True)
class Made:
    """What an engine was made for.

    Attributes:
        target: The processor.
        version: Of ONNX Runtime.
    """

    target: str
    version: str


def name_nodes(model: "onnx.ModelProto") -> None:
    """Give every node that has no name one, and one of its own to each that shares it.

    The profiler tells nodes apart by their names alone, those of the graphs inside an If or a Loop as well.
    """
    used: set[str] = set()
    graphs = [model.graph]
    while graphs:
        graph = graphs.pop(0)
        for node in graph.node:
            base = node.name or next(filter(None, node.output), node.op_type)
            name, count = base, 1
            while name in used:
                count += 1
                name = f"{base}#{count}"
            node.name = name
            used.add(name)
        inner = [attribute for node in graph.node for attribute in node.attribute]
        graphs += [
            each for attribute in inner for each in ([attribute.g] if attribute.HasField("g") else attribute.graphs)
        ]


def is_blocked(model: "onnx.ModelProto") -> bool:
    """Whether activations lie in blocks as wide as the vectors of the processor that it was optimized on."""
    return any(node.domain == _BLOCKED for node in model.graph.node)


def note_sources(model: "onnx.ModelProto", sources: dict[str, tuple[str, ...]]) -> None:
    """Write into each node which nodes of the file it computes, for people who look at the engine."""
    for node in model.graph.node:
        if sources.get(node.name):
            node.metadata_props.add(key=_NODES, value=json.dumps(sources[node.name]))


def note_target(model: "onnx.ModelProto", made: Made) -> None:
    """Write into the model what it was made for."""
    for key, value in ((_TARGET, made.target), (_VERSION, made.version)):
        model.metadata_props.add(key=key, value=value)


def made_for(session: Any) -> Made | None:
    """What a loaded engine was made for; ``None`` for a model that is no engine."""
    noted = session.get_modelmeta().custom_metadata_map
    return Made(noted[_TARGET], noted.get(_VERSION, "")) if _TARGET in noted else None


def other_version(engine: Path) -> str:
    """What to add to an error with an engine that another version of ONNX Runtime made; empty for all others."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        noted = {each.key: each.value for each in read_model(engine).metadata_props}
    except DecodeError:
        return ""
    made, here = noted.get(_VERSION), version("onnxruntime")
    if made in (None, here):
        return ""
    return f" It was compiled with ONNX Runtime {made}, and {here} is installed: compile the ONNX file again."


def read_model(path: Path) -> "onnx.ModelProto":
    """The model in a file."""
    import onnx

    return onnx.load(path, format="protobuf")
