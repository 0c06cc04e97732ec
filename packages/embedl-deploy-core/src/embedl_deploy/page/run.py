"""What a page is drawn from: the reports of one run, as far as the page reads them.

Each class lists the entries that the page needs of what a report's ``to_dict`` gives, which is what ``--json`` prints.
Other entries are passed over, so a report may say more without the page having to know.
"""

from dataclasses import dataclass, field
from typing import Any

#: Larger values are not drawn: their difference would be infinite.
_LARGEST = 1e300


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
class Tensor:
    """What an engine's layer reads or writes."""

    dtype: str


@dataclass(frozen=True)
class EngineLayer:
    """A kernel."""

    name: str
    kind: str
    type: str
    precision: str
    bytes_read: int
    bytes_written: int
    weight_bytes: int
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()
    onnx_nodes: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class FloatLayer:
    """What an engine computes in float though the file has quantizers."""

    layer: str
    module: str | None
    precision: str
    reason: str


@dataclass(frozen=True)
class Weighted:
    """How many convolutions or products run in a type."""

    kind: str
    precision: str
    count: int


@dataclass(frozen=True)
class EngineTotals:
    """An engine in sums."""

    model: str
    compiler: str
    target: str
    engine_bytes: int
    kernels: int
    activation_bytes: int
    weight_bytes: int
    reformats: int
    weighted_by_precision: tuple[Weighted, ...]


@dataclass(frozen=True)
class Engine(EngineTotals):
    """What the compiler made of the file."""

    layers: tuple[EngineLayer, ...]
    float_layers: tuple[FloatLayer, ...] = ()
    messages: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModuleDifference:
    """What a module costs in two engines."""

    module: str
    kernels: tuple[int, ...]
    activation_bytes: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.kernels) != 2 or len(self.activation_bytes) != 2:
            raise ValueError(f"the module {self.module!r} needs two counts of kernels and of bytes, one of each engine")


@dataclass(frozen=True)
class Comparison:
    """Two engines side by side."""

    first: EngineTotals
    second: EngineTotals
    verdict: str
    by_module: tuple[ModuleDifference, ...]


@dataclass(frozen=True)
class Finding:
    """A node that breaks a rule."""

    rule: str
    severity: str
    node: str
    operator: str
    module: str | None
    message: str
    title: str
    remedy: str


@dataclass(frozen=True)
class NotJudged:
    """What a rule could not judge."""

    rule: str
    node: str | None
    module: str | None
    reason: str


@dataclass(frozen=True)
class Check:
    """What the rules say about the file."""

    model: str
    backend: str
    ok: bool
    rules_checked: tuple[str, ...]
    findings: tuple[Finding, ...]
    undecided: tuple[NotJudged, ...] = ()
    rules_failed: tuple[str, ...] = ()


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


@dataclass(frozen=True)
class FrontierPoint:
    """What a search has tried.

    Attributes:
        objective: What it costs; less is better.
        accuracy: What it keeps; more is better.
        decision: What was decided, in words.
        chosen: Whether the search ended with it.
    """

    objective: float
    accuracy: float
    decision: str
    chosen: bool = False

    def __post_init__(self) -> None:
        if max(abs(self.objective), abs(self.accuracy)) > _LARGEST:
            raise ValueError(f"the decision {self.decision!r} has a value that is too large to draw")


@dataclass(frozen=True)
class Frontier:
    """What a search has seen.

    Attributes:
        objective: What the points' ``objective`` is, with its unit.
        accuracy: What their ``accuracy`` is, with its unit.
        points: In the order in which they were tried.
    """

    objective: str
    accuracy: str
    points: tuple[FrontierPoint, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        points = [dict(vars(point)) for point in self.points]
        return {"objective": self.objective, "accuracy": self.accuracy, "points": points}


@dataclass(frozen=True)
class Run:
    """The reports of one run; ``None`` for what there is none of."""

    transformation: Transformation | None = None
    quantization: Quantization | None = None
    sensitivity: Sensitivity | None = None
    engine: Engine | None = None
    comparison: Comparison | None = None
    check: Check | None = None
    float32: Float32 | None = None
    frontier: Frontier | None = None
    commands: tuple[str, ...] = ()
