"""Engines that were never built."""

from embedl_deploy.engine import EngineLayer, EngineReport, EngineTensor, LayerKind


def tensor(*shape: int, dtype: str = "float16", name: str = "t", elements: int | None = None) -> EngineTensor:
    """A tensor of some type."""
    return EngineTensor(name, shape, dtype, elements=elements)


def layer(name: str, kind: LayerKind = LayerKind.CONVOLUTION, dtype: str = "float16", **fields: object) -> EngineLayer:
    """A layer that reads and writes 100 values; further fields as :class:`EngineLayer` has them."""
    sides: dict[str, object] = {"inputs": (tensor(100, dtype=dtype),), "outputs": (tensor(100, dtype=dtype),)}
    return EngineLayer(name, kind, kind.value, **{**sides, **fields})  # type: ignore[arg-type]


def report(*layers: EngineLayer, **fields: object) -> EngineReport:
    """A report of some layers."""
    plain: dict[str, object] = {
        "model": "net.onnx",
        "compiler": "Acme compiler 1",
        "target": "edge",
        "engine_bytes": 1000,
        "build_seconds": 0.5,
    }
    return EngineReport(layers=layers, **{**plain, **fields})  # type: ignore[arg-type]
