"""Engine layers as TensorRT's engine inspector gives them, in JSON.

Each layer has ``Name``, ``LayerType``, ``Inputs`` and ``Outputs`` with ``Name``, ``Dimensions`` and
``Format/Datatype`` (such as ``"Channel major FP16 format where channel % 8 == 0"``), for weighted layers ``Weights``
with ``Type`` and ``Count``, and ``Metadata`` with the ONNX nodes, when the engine was built with detailed profiling
verbosity (NVIDIA TensorRT documentation, "Engine Inspector").
"""

import json
import re
from typing import Any

from embedl_deploy.engine import EngineLayer, EngineTensor
from embedl_deploy.tensorrt.compilers.words import dtype_of, kind_of, onnx_nodes_in

_DTYPE = re.compile(
    r"\b(FP32|FP16|BF16|FP8|FP4|INT8|INT4|INT32|INT64|UINT8|BOOL|Float|Half|BFloat16|Int8|Int32|Int64|Bool)\b", re.I
)


def layers_in_inspection(text: str) -> tuple[EngineLayer, ...]:
    """The layers of an engine, in the order in which it runs them.

    Raises:
        ValueError: The text has no details, because the engine was built without them.
    """
    plain = json.loads(text)
    layers = plain.get("Layers") if isinstance(plain, dict) else None
    if not isinstance(layers, list) or not all(isinstance(layer, dict) for layer in layers):
        raise ValueError("The engine's inspection lists no layers in detail: it needs ProfilingVerbosity.DETAILED.")
    return tuple(_layer(layer) for layer in layers)


def _layer(plain: dict[str, Any]) -> EngineLayer:
    inputs, outputs = (tuple(_tensor(t) for t in plain.get(side, [])) for side in ("Inputs", "Outputs"))
    constants = tuple(
        EngineTensor(side, (int(plain[side]["Count"]),), dtype_of(str(plain[side]["Type"])))
        for side in ("Weights", "Bias")
        if isinstance(plain.get(side), dict) and int(plain[side].get("Count", 0)) > 0
    )
    word = str(plain.get("ParameterType") or plain["LayerType"])
    kind = kind_of(word, plain["Name"], inputs, outputs)
    sources = onnx_nodes_in(str(plain.get("Metadata", "")))
    return EngineLayer(plain["Name"], kind, str(plain["LayerType"]), inputs, outputs, constants, sources)


def _tensor(plain: dict[str, Any]) -> EngineTensor:
    described = str(plain.get("Format/Datatype", plain.get("Datatype", "")))
    found = _DTYPE.search(described)
    shape = tuple(int(size) for size in plain.get("Dimensions", []))
    return EngineTensor(str(plain.get("Name", "")), shape, dtype_of(found[0]) if found else "", described)
