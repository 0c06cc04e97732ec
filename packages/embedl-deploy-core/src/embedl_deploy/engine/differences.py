"""What each PyTorch module costs in two engines."""

from dataclasses import dataclass, field

from embedl_deploy.engine.figures import EngineFigures
from embedl_deploy.validation.checked import checked


@checked
@dataclass(frozen=True)
class ModuleDifference:
    """What a PyTorch module costs in two engines.

    Attributes:
        module: Its path.
        kernels: Layers that it went into, in each.
        activation_bytes: What those read and write, in each.
        seconds: How long those take, in each; ``None`` where layers of one were not timed.
    """

    module: str
    kernels: tuple[int, int]
    activation_bytes: tuple[int, int]
    seconds: tuple[float, float] | None = None


@dataclass
class _Cost:
    """What a module costs in one engine."""

    kernels: int = 0
    moved: int = 0
    seconds: float = 0.0

    def add(self, other: "_Cost") -> None:
        """Add another's."""
        self.kernels += other.kernels
        self.moved += other.moved
        self.seconds += other.seconds


@dataclass
class _Side:
    """The modules of an engine."""

    report: EngineFigures
    costs: dict[str, _Cost] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for layer in self.report.layers:
            if layer.modules:
                cost = _Cost(1, layer.bytes_read + layer.bytes_written, layer.seconds or 0.0)
                self.costs.setdefault(layer.modules[-1], _Cost()).add(cost)

    def folded(self, other: "_Side") -> dict[str, _Cost]:
        """With parts that ``other`` lacks added up under the nearest module around them that only it has."""
        found: dict[str, _Cost] = {}
        for path, cost in self.costs.items():
            around = path
            while around and path not in other.costs and (around in self.costs or around not in other.costs):
                around = around.rpartition(".")[0]
            found.setdefault(around or path, _Cost()).add(cost)
        return found


def differences_by_module(first: EngineFigures, second: EngineFigures, *, timed: bool) -> list[ModuleDifference]:
    """What each module costs in both, the largest increase first: of time, or of bytes.

    Args:
        first: The reference.
        second: What is compared with it.
        timed: Whether the layers of both were timed, in the same way.
    """
    sides = _Side(first), _Side(second)
    costs = sides[0].folded(sides[1]), sides[1].folded(sides[0])
    rows = []
    for path in dict.fromkeys([*costs[0], *costs[1]]):
        a, b = (side.get(path, _Cost()) for side in costs)
        seconds = (a.seconds, b.seconds) if timed else None
        rows.append(ModuleDifference(path, (a.kernels, b.kernels), (a.moved, b.moved), seconds))

    def increase(row: ModuleDifference) -> float:
        before, after = row.activation_bytes if row.seconds is None else row.seconds
        return after - before

    return sorted(rows, key=increase, reverse=True)
