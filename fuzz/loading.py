"""From source to modules that can be called, with lines that tracebacks show."""

import linecache
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from torch import nn

from fuzz.network import Network


@dataclass(frozen=True)
class Loaded:
    """A network that can be built.

    Attributes:
        make: Builds the model, with the same weights each time, in evaluation mode.
        inputs: Positional and keyword inputs, by a seed.
    """

    make: Callable[[], nn.Module]
    inputs: Callable[[int], tuple[tuple[Any, ...], dict[str, Any]]]


def load(network: Network) -> Loaded:
    """Execute a network's source as a module that can be found by name, so that pickles and tracebacks work."""
    dropped = "_".join(sorted(map(str, network.dropped)))
    name = f"fuzz_network_{network.seed}{'_without_' + dropped if dropped else ''}"
    module = sys.modules[name] = ModuleType(name)
    module.__file__ = file = f"<{name}>"
    linecache.cache[file] = (len(network.source), None, network.source.splitlines(keepends=True), file)
    exec(compile(network.source, file, "exec"), vars(module))
    return Loaded(_quiet(module.make), module.inputs)


def unload(network: Network) -> None:
    """Forget a network's module, so that a run of many networks keeps its size."""
    for name in [name for name in sys.modules if name.startswith(f"fuzz_network_{network.seed}")]:
        linecache.cache.pop(f"<{name}>", None)
        del sys.modules[name]


def _quiet(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    def built() -> nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old-style weight_norm says that it is old
            return make()

    return built
