"""Detects models whose Python code draws or seeds random numbers, which a graph cannot do.

=============================================  =====================================================================
the model's code                               the graph
=============================================  =====================================================================
``torch.rand_like(x)``, ``F.dropout``          draws, as the model does
``torch.manual_seed(3)``, ``fork_rng()``       does not seed: refused if what is computed shows it
``generator=self.g``                           draws from a copy of it
``generator=torch.Generator().manual_seed(3)``  has that generator once, which moves on: refused
``random.random()``, ``np.random.rand()``      has the numbers of one call: refused if anything depends on them
=============================================  =====================================================================

Whether anything depends on the numbers of ``random`` and ``numpy.random`` is found out by running the code again with
numbers near either end of their range, so that ``if random.random() < 0.5:`` takes both branches.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx, nn
from torch.overrides import TorchFunctionMode

from embedl_deploy.capture.next_call import OtherCallsDifferError
from embedl_deploy.capture.source import source_of
from embedl_deploy.errors import CaptureError
from embedl_deploy.graph.lookup import get_constant

#: Seeds that nobody else sets, one for each generator.
_NOBODYS_SEED = 0x5EEDED_0F_0BEDDED
#: The Mersenne Twister turns each number of its state into a number that it gives.
_STATE_SIZE = 624
#: How many are chosen. Those after them are ordinary, for code that draws again until it likes what it got.
_CHOSEN = 416
#: Numbers of the state that give 0x01000000; 0xfeffffff and 0x80000001, the second where the first is drawn again.
_LOW, _HIGH = (0x81102244, 0x81102244), (0x93CDB9F7, 0x903266CD)


@dataclass(frozen=True)
class _Source:
    """Random numbers that the process has one generator of, a Mersenne Twister.

    Attributes:
        name: The Python module.
        get: Gives its state.
        put: Sets its state.
        state: Makes a state of its numbers.
    """

    name: str
    get: Callable[[], Any]
    put: Callable[[Any], Any]
    state: Callable[[list[int]], Any]

    @contextmanager
    def giving(self, numbers: tuple[int, int]) -> Iterator[None]:
        """Within the block the next numbers are those that are chosen."""
        before, others = self.get(), random.Random(0)
        rest = [others.getrandbits(32) for _ in range(_STATE_SIZE - _CHOSEN)]
        self.put(self.state([*numbers] * (_CHOSEN // 2) + rest))
        try:
            yield
        finally:
            self.put(before)


_SOURCES = (
    _Source("random", random.getstate, random.setstate, lambda numbers: (3, (*numbers, 0), None)),
    _Source(
        "numpy.random",
        np.random.get_state,
        np.random.set_state,
        lambda numbers: ("MT19937", np.array(numbers, np.uint32), 0),
    ),
)


class RandomNumbers:
    """What a model's code does with generators of random numbers while it is captured.

    Args:
        model: The copy that is captured. Its generators have other seeds until :meth:`settle`.

    Attributes:
        drawn: The modules of Python whose numbers were drawn.
        seeds_torch: Whether torch's own generators were seeded.
    """

    def __init__(self, model: nn.Module) -> None:
        self.drawn: tuple[str, ...] = ()
        self.seeds_torch = False
        self._watched: list[tuple[torch.Generator, int]] = []
        self._states: dict[int, torch.Tensor] = {}
        for generator in _generators([vars(module) for module in model.modules()]):
            if generator is not torch.default_generator:
                seed = _NOBODYS_SEED + 1 + len(self._states)
                self._states[seed] = generator.get_state()
                generator.manual_seed(seed)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Around a block in which the model's code runs once, on traced values."""
        before = [_comparable(source.get()) for source in _SOURCES]
        generators = [torch.default_generator, *torch.cuda.default_generators]  # none before CUDA is in use
        states = [generator.get_state() for generator in generators]
        for generator in generators:
            generator.manual_seed(_NOBODYS_SEED)
        self._watched = [(generator, _NOBODYS_SEED) for generator in generators]
        try:
            yield
        finally:
            self.note_call()
            self._watched = []
            now = [_comparable(source.get()) for source in _SOURCES]
            self.drawn = tuple(s.name for s, a, b in zip(_SOURCES, before, now, strict=True) if a != b)
            for generator, state in zip(generators, states, strict=True):
                generator.set_state(state)

    def note_call(self) -> None:
        """Look, at a call that the graph is to hold, whether the model has seeded torch's generators."""
        self.seeds_torch = self.seeds_torch or any(g.initial_seed() != seed for g, seed in self._watched)

    def extremes(self) -> list[AbstractContextManager[None]]:
        """Contexts in which what the model has drawn from gives low numbers, and high ones."""
        sources = [source for source in _SOURCES if source.name in self.drawn]
        return [source.giving(numbers) for source in sources for numbers in (_LOW, _HIGH)]

    def owns(self, generator: torch.Generator) -> bool:
        """Whether a generator is the model's, and nobody has seeded it in the meantime."""
        return generator.initial_seed() in self._states

    def settle(self, graph_module: fx.GraphModule) -> None:
        """Give the generators of a graph the states of those of the model.

        Raises:
            CaptureError: One is not the model's, or the model's code seeds it.
        """
        for node in graph_module.graph.find_nodes(op="get_attr"):
            generator = get_constant(node)
            if isinstance(generator, torch.Generator):
                if not self.owns(generator):
                    user = next(iter(node.users), node)
                    source = source_of(user)
                    raise CaptureError(
                        f"{type(graph_module).__name__} cannot be captured: "
                        f"{another_generator(user.name)}{f' ({source})' if source else ''}.",
                        source=source,
                    )
                generator.set_state(self._states[generator.initial_seed()])

    def refuse_drawn(self, model: nn.Module) -> OtherCallsDifferError:
        """The error for a model that computes with what it has drawn."""
        names = " and ".join(map(repr, self.drawn))
        return OtherCallsDifferError(
            f"{type(model).__name__} cannot be captured: its forward draws random numbers from {names}, and its "
            "outputs depend on them. The graph would use the numbers of one call in every call. Draw them with torch "
            "functions, such as torch.rand_like(x), or make them an input of forward."
        )

    def refuse_seed(self, model: nn.Module) -> OtherCallsDifferError:
        """The error for a model that seeds what it draws from."""
        return OtherCallsDifferError(
            f"{type(model).__name__} cannot be captured: its forward seeds torch's random numbers "
            "(torch.manual_seed, torch.random.fork_rng, torch.set_rng_state), which a graph cannot do. Seed them "
            "before you call the model, or make the random numbers an input of forward. If forward draws none, give "
            "example inputs, which show that."
        )

    def notes(self) -> tuple[str, ...]:
        """What the user should know where the graph is right."""
        notes = []
        if self.drawn:
            names = " and ".join(map(repr, self.drawn))
            notes.append(
                f"the model's forward draws random numbers from {names}; that is not part of the graph, and nothing "
                "that the graph computes depends on them"
            )
        if self.seeds_torch:
            notes.append("the model's forward seeds torch's random numbers; the graph does not")
        return tuple(notes)


def another_generator(name: str) -> str:
    """Why a graph cannot contain a call with a generator that does not belong to the model."""
    return (
        f"{name!r} draws from a torch.Generator that forward creates or seeds; a graph would use one generator for all "
        "calls, without seeding it again. Make it an attribute of the model and seed it outside forward, or make the "
        "random numbers an input"
    )


class CallsNoted(TorchFunctionMode):
    """Tells :class:`RandomNumbers` of the calls that ``torch.export`` sees."""

    def __init__(self, numbers: RandomNumbers) -> None:
        super().__init__()
        self._numbers = numbers

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._numbers.note_call()
        return func(*args, **(kwargs or {}))


def _comparable(state: Any) -> list[Any]:
    return [part.tobytes() if isinstance(part, np.ndarray) else part for part in state]


def _generators(value: Any) -> Iterator[torch.Generator]:
    """The generators in attributes, and in lists and dictionaries of such."""
    if isinstance(value, torch.Generator):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _generators(item)
    elif isinstance(value, dict):
        yield from _generators(list(value.values()))
