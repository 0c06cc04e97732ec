"""What the page reads of the reports about a model: rewrites, quantization, sensitivity, what stays in float32."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Match:
    """A place where a pattern fits, and what became of it."""

    pattern: str
    nodes: tuple[str, ...]
    node: str = ""
    stage: str = ""
    reason: str = ""
    replaced_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class GraphNode:
    """A call in the transformed graph."""

    node: str
    op: str
    module: str
    kind: str
    inputs: tuple[str, ...]


@dataclass(frozen=True)
class Transformation:
    """What was rewritten."""

    applied: tuple[Match, ...]
    declined: tuple[Match, ...]
    skipped: tuple[Match, ...] = ()
    failed: tuple[Match, ...] = ()
    model: str = ""
    backend: str | None = None
    capture: str = ""
    notes: tuple[str, ...] = ()
    unsupported: dict[str, str] = field(default_factory=dict)
    graph: tuple[GraphNode, ...] = ()


@dataclass(frozen=True)
class Point:
    """A place where a quantizer can be; ``config`` is empty where there is none."""

    path: str
    label: str
    config: str
    rule: str
    kind: str
    stub: str = ""


@dataclass(frozen=True)
class Quantization:
    """What was quantized."""

    policy: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class LayerSensitivity:
    """What quantizing one layer costs."""

    path: str
    alone: float | None
    weight_alone: float | None
    activation_alone: float | None
    left_in_float: float | None
    share: float | None


@dataclass(frozen=True)
class Sensitivity:
    """What quantizing each layer costs."""

    metric: str
    quantized: float | None
    layers: tuple[LayerSensitivity, ...]


@dataclass(frozen=True)
class Float32Node:
    """What stays in float32."""

    node: str
    module: str
    operator: str
    reason: str


@dataclass(frozen=True)
class Float32:
    """What stays in float32 where the rest is float16."""

    nodes: tuple[Float32Node, ...]
    sqnr_before: float | None
    sqnr: float | None
