"""One line for each module, joined from all reports: how it was rewritten, what it costs, and what it loses."""

from dataclasses import dataclass, field

from embedl_deploy.page.file_reports import EngineLayer
from embedl_deploy.page.model_reports import GraphNode, LayerSensitivity, Match, Point
from embedl_deploy.page.run import Run


@dataclass
class ModuleLine:
    """What is known of a module, or of a function that no module took.

    Attributes:
        number: Its place on the page, from which its anchors are made.
        path: The module's path; of a function, the node's name.
        kind: Class or function.
        within: Of a function, the module whose forward calls it.
        nodes: Numbers of the graph's nodes that call it.
        rewrites: What made it, conversions first.
        points: Where quantizers can be.
        sensitivity: What quantizing it costs.
        kernels: Numbers of the engine's layers that it went into.
        own: Those of them whose output is its own: they count for it.
    """

    number: int
    path: str
    kind: str = ""
    within: str | None = None
    nodes: list[int] = field(default_factory=list)
    rewrites: list[Match] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)
    sensitivity: LayerSensitivity | None = None
    kernels: list[int] = field(default_factory=list)
    own: list[EngineLayer] = field(default_factory=list)

    @property
    def is_listed(self) -> bool:
        """Whether there is anything to say of it in the table of layers, so that it can be linked to."""
        return bool(self.points or self.kernels or self.sensitivity)

    @property
    def activation_bytes(self) -> int:
        """What its kernels read and write."""
        return sum(layer.bytes_read + layer.bytes_written for layer in self.own)

    @property
    def weight_bytes(self) -> int:
        """Constants of its kernels."""
        return sum(layer.weight_bytes for layer in self.own)

    @property
    def engine_precision(self) -> str:
        """The type that the engine computes it in: that of its products if it has any."""
        weighted = [layer for layer in self.own if layer.kind in ("convolution", "gemm", "attention")]
        return next((layer.precision for layer in weighted or self.own), "")

    @property
    def planned_precision(self) -> str:
        """The formats of its quantizers; ``"float"`` if it could have some and has none."""
        if not self.points:
            return ""
        formats = {kind: self._formats(kind == "weight") for kind in ("activation", "weight")}
        quantized = {kind: found for kind, found in formats.items() if found}
        if not quantized:
            return "float"
        if set(quantized) == {"weight"} and any(point.kind != "weight" for point in self.points):
            return f"{quantized['weight']} weights"
        return " × ".join(dict.fromkeys(quantized.values()))

    def _formats(self, of_weights: bool) -> str:
        found = [p.config.split()[0].lower() for p in self.points if p.config and (p.kind == "weight") is of_weights]
        return "/".join(dict.fromkeys(found))

    @property
    def precision(self) -> str:
        """What it is coloured by: what the engine does, or else what is planned."""
        return self.engine_precision or self.planned_precision


class Modules:
    """The lines of a run, in the order of the graph.

    Attributes:
        lines: All of them.
        of_node: By name of a node of the transformed graph.
    """

    def __init__(self, run: Run) -> None:
        self.lines: list[ModuleLine] = []
        self.of_node: dict[str, ModuleLine] = {}
        self._by_path: dict[str, ModuleLine] = {}
        self._reader: dict[str, str] = {}  # of a quantizer, the path of the first module behind it
        made_by = _rewrites_by_node(run)
        for number, node in enumerate(run.transformation.graph if run.transformation else ()):
            if node.op != "placeholder":
                self._add_node(number, node, made_by.get(node.node, []))
        for point in run.quantization.points if run.quantization else ():
            self._line(point.path).points.append(point)
            if point.stub and point.kind != "weight":
                self._reader.setdefault(point.stub, point.path)
        for layer in run.sensitivity.layers if run.sensitivity else ():
            self._line(layer.path).sensitivity = layer
        #: Of each kernel, the lines that went into it.
        self.of_kernel = [self._add_kernel(*item) for item in enumerate(run.engine.layers if run.engine else ())]
        self._number()

    def find(self, path: str | None) -> ModuleLine | None:
        """The line of a module, or of the nearest module around it that has one; ``None`` if there is none."""
        while path:
            if path in self._by_path:
                return self._by_path[path]
            if path in self._reader:
                return self._by_path[self._reader[path]]
            path = path.rpartition(".")[0]
        return None

    def _add_node(self, number: int, node: GraphNode, made_by: list[Match]) -> None:
        is_function = node.op != "call_module"
        key = f"{node.module}.{node.node}" if is_function else node.module
        line = self._by_path.get(key)
        if line is None:
            path, within = (node.node, node.module) if is_function else (node.module, None)
            line = ModuleLine(0, path, node.kind, within)
            self._by_path[key] = line
            self.lines.append(line)
        line.nodes.append(number)
        line.rewrites += [match for match in made_by if match not in line.rewrites]
        self.of_node[node.node] = line

    def _line(self, path: str) -> ModuleLine:
        if path not in self._by_path:
            line = ModuleLine(0, path)
            inside = [at for at, other in enumerate(self.lines) if _holds(path, other)]
            self.lines.insert(inside[-1] + 1 if inside else len(self.lines), line)
            self._by_path[path] = line
        return self._by_path[path]

    def _add_kernel(self, number: int, layer: EngineLayer) -> list[ModuleLine]:
        if not layer.modules:
            return []
        found = [self.find(path) or self._line(path) for path in layer.modules]
        # The last writes the output; but a quantizer behind it belongs to what is quantized.
        real = [line for path, line in zip(layer.modules, found, strict=True) if path not in self._reader]
        (real or found)[-1].own.append(layer)
        lines = list({id(line): line for line in found}.values())
        for line in lines:
            line.kernels.append(number)
        return lines

    def _number(self) -> None:
        for number, line in enumerate(self.lines):
            line.number = number


def _holds(path: str, line: ModuleLine) -> bool:
    return f"{line.within if line.within is not None else line.path}.".startswith(f"{path}.")


def _rewrites_by_node(run: Run) -> dict[str, list[Match]]:
    """For each node of the transformed graph, the rewrites that led to it, the first one first."""
    if run.transformation is None:
        return {}
    found: dict[str, list[Match]] = {}
    for match in run.transformation.applied:
        before = [earlier for node in match.nodes for earlier in found.get(node, [])]
        for node in match.replaced_by:
            found[node] = [*dict.fromkeys([*before, match])]
    return found
