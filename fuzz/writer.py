"""What blocks write with: lines of ``__init__`` and ``forward``, and the shape of the value that flows."""

from dataclasses import dataclass, field
from random import Random

#: Axes of each kind of value; the first is the batch. N.B. ``sequence`` and ``map1d`` have the same rank.
KINDS = ("vector", "sequence", "map1d", "map2d", "map3d")


@dataclass(frozen=True)
class Value:
    """A tensor in ``forward``.

    Attributes:
        name: The variable.
        shape: Its sizes: (N, E), (N, S, E), (N, C, L), (N, C, H, W) or (N, C, D, H, W), by kind.
        kind: One of :data:`KINDS`.
    """

    name: str
    shape: tuple[int, ...]
    kind: str

    @property
    def channel_axis(self) -> int:
        """The axis of channels or features."""
        return len(self.shape) - 1 if self.kind in ("vector", "sequence") else 1

    @property
    def channels(self) -> int:
        """How many channels or features there are."""
        return self.shape[self.channel_axis]

    @property
    def spatial(self) -> tuple[int, ...]:
        """Sizes of the axes after the channels of a map."""
        return self.shape[2:]

    @property
    def numel(self) -> int:
        """How many elements there are."""
        count = 1
        for size in self.shape:
            count *= size
        return count

    def with_channels(self, channels: int) -> tuple[int, ...]:
        """The shape with another number of channels."""
        axis = self.channel_axis
        return (*self.shape[:axis], channels, *self.shape[axis + 1 :])


@dataclass
class Writer:
    """A network in the making.

    Attributes:
        rng: Draws what a block may choose.
        value: What flows; blocks replace it by :meth:`put`.
        dtype: The floating-point type of the network, as source.
    """

    rng: Random
    value: Value
    dtype: str = "torch.float32"
    tops: list[str] = field(default_factory=list)
    init: list[str] = field(default_factory=list)
    body: list[str] = field(default_factory=list)
    parameters: list[str] = field(default_factory=list)
    keyword_only: list[str] = field(default_factory=list)
    args: list[str] = field(default_factory=list)
    rest: list[str] = field(default_factory=list)
    kwargs: list[str] = field(default_factory=list)
    variadic: str = ""
    variadic_keywords: str = ""
    history: list[Value] = field(default_factory=list)
    embedding: tuple[str, int, int] | None = None
    halves: bool = False
    _count: int = 0

    def name(self, prefix: str) -> str:
        """A name that no other line has."""
        self._count += 1
        return f"{prefix}{self._count}"

    def layer(self, code: str, prefix: str = "layer") -> str:
        """A sub-module; returns ``self.<name>``."""
        name = f"self.{self.name(prefix)}"
        self.init.append(f"{name} = {code}")
        return name

    def parameter(self, *shape: int, scale: float = 0.3) -> str:
        """A parameter with random values."""
        return self.layer(f"nn.Parameter({scale} * torch.randn({', '.join(map(str, shape))}))", "weight")

    def buffer(self, code: str, prefix: str = "buffer", persistent: bool = True) -> str:
        """A buffer; ``code`` makes it."""
        name = self.name(prefix)
        self.init.append(f"self.register_buffer({name!r}, {code}, persistent={persistent})")
        return f"self.{name}"

    def top(self, code: str) -> None:
        """A definition at the top of the module, once."""
        if code not in self.tops:
            self.tops.append(code)

    def line(self, code: str) -> None:
        """A line of ``forward``."""
        self.body.extend(code.split("\n"))

    def let(self, code: str, prefix: str = "t") -> str:
        """A variable that is on the way to a value."""
        name = self.name(prefix)
        self.line(f"{name} = {code}")
        return name

    def put(self, code: str, shape: tuple[int, ...] | None = None, kind: str | None = None) -> Value:
        """The next value that flows; shape and kind stay as they are unless they are given."""
        self.history.append(self.value)
        name = self.name("v")
        self.line(f"{name} = {code}")
        self.value = Value(name, shape or self.value.shape, kind or self.value.kind)
        return self.value

    def input(self, code: str, prefix: str = "extra") -> str:
        """A further positional input; ``code`` makes an example of it, with the generator ``g``."""
        name = self.name(prefix)
        self.parameters.append(name)
        self.args.append(code)
        return name

    def choose(self, *options: object) -> object:
        """One of some options."""
        return self.rng.choice(options)

    def divisor(self, number: int, *, most: int = 4) -> int:
        """A divisor of a number, such as a number of groups or heads."""
        return self.rng.choice([d for d in range(1, most + 1) if number % d == 0])

    def coin(self, chance: float = 0.5) -> bool:
        """Whether something happens."""
        return self.rng.random() < chance
