"""Engine layers as the builder of TensorRT for RTX logs them.

A layer is a line: ``Name: …, LayerType: kgen, Inputs: [ { Name: …, Dimensions: [1,3], …, Datatype: Float, Format: … }],
Constants: [ … ], Outputs: [ … ], TacticName: …, StreamId: 0, Metadata: [ONNX Layer: a][ONNX Layer: b]``.
"""

import re
from collections.abc import Iterable

from embedl_deploy.engine import EngineLayer, EngineTensor
from embedl_deploy.tensorrt.compilers.words import dtype_of, kind_of, onnx_nodes_in

_LIST = r"\[(?P<{0}>|.*? \}})\]"  # empty, or ending with a tensor's closing brace
_LAYER = re.compile(
    rf"Name: (?P<name>.*?), LayerType: (?P<type>[^,]*), Inputs: {_LIST.format('inputs')}, "
    rf"(?:Constants: {_LIST.format('constants')}, )?Outputs: {_LIST.format('outputs')}(?:, (?P<rest>.*))?$"
)
_TENSOR = re.compile(
    r"\{ Name: (?P<name>.*?), Dimensions: \[(?P<shape>[^\]]*)\].*?Datatype: (?P<dtype>[^,}]*?)"
    r"(?:, Format: (?P<layout>.*?))? \}"
)


def layers_in_log(lines: Iterable[str]) -> tuple[EngineLayer, ...]:
    """The layers among the lines of a verbose log, in the order in which the engine runs them."""
    found = []
    for line in (line for message in lines for line in message.split("\n")):
        if not line.startswith("Name: ") or ", LayerType: " not in line:
            continue
        match = _LAYER.match(line.strip())
        if match is None:
            raise ValueError(f"This line of TensorRT's log lists a layer in an unknown form: {line!r}")
        inputs, constants, outputs = (_tensors(match[side]) for side in ("inputs", "constants", "outputs"))
        kind = kind_of(match["type"], match["name"], inputs, outputs)
        sources = onnx_nodes_in((match["rest"] or "").partition("Metadata: ")[2])
        found.append(EngineLayer(match["name"], kind, match["type"], inputs, outputs, constants, sources))
    return tuple(found)


def _tensors(text: str | None) -> tuple[EngineTensor, ...]:
    found = []
    for match in _TENSOR.finditer(f"{text or ''} "):
        shape = tuple(int(size) for size in match["shape"].split(",") if size.strip())
        found.append(EngineTensor(match["name"], shape, dtype_of(match["dtype"]), (match["layout"] or "").strip()))
    return tuple(found)
