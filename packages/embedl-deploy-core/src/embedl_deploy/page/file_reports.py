"""What the page reads of the reports about a file: its engine, two engines side by side, the findings of a check."""

from dataclasses import dataclass, field


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
    seconds: float | None = None


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
    seconds: float | None = field(default=None, kw_only=True)


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
    seconds: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        pairs = (self.kernels, self.activation_bytes, self.seconds or (0.0, 0.0))
        if any(len(pair) != 2 for pair in pairs):
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
