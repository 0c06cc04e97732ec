"""Checks that a fused module computes with the results of its stubs.

A forward that calls a place and throws the result away looks right to whoever counts calls, and its weight stays in
float. So the first call of every module is followed operation by operation. What that does not see (NumPy, C code) is
tried: the module runs again with NaN from the place, and a place that matters changes the output.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from embedl_deploy.graph.inputs import tensors_in
from embedl_deploy.modules import FusedModule, QuantStub
from embedl_deploy.verify import state_kept
from embedl_deploy.verify.memory import place_of


def fused_modules(model: nn.Module) -> dict[str, FusedModule]:
    """The fused modules of a model by path, without those that are parts of others."""
    found: dict[str, FusedModule] = {}
    inside = None
    for path, part in model.named_modules():
        if isinstance(part, FusedModule) and (inside is None or not path.startswith(inside)):
            found[path], inside = part, f"{path}." if path else ""
    return found


@contextmanager
def watching_places(model: nn.Module) -> Iterator[dict[nn.Module, "Watch"]]:
    """Within the block, the calls of the model's fused modules are watched."""
    watches: dict[nn.Module, Watch] = {module: Watch(module) for module in fused_modules(model).values()}
    own = {module: vars(module).get("forward") for module in watches}
    try:
        for module, watch in watches.items():
            vars(module)["forward"] = watch
        yield watches
    finally:
        for module, forward in own.items():
            if forward is None:
                del vars(module)["forward"]
            else:
                vars(module)["forward"] = forward


class Watch:
    """Stands in for the forward of a fused module, and sees which places it computes with.

    Args:
        module: The module.

    Attributes:
        called: Whether it was called.
        ignored: The places that it called, and whose result never went into its output.
    """

    def __init__(self, module: FusedModule) -> None:
        self.called = False
        self.ignored: set[str] = set()
        self._module = module
        self._forward: Callable[..., Any] = module.forward
        stubs = (entry for entry in module.named_modules() if isinstance(entry[1], QuantStub))
        self._waiting = {path: stub for path, stub in stubs if stub.enabled}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What the module computes."""
        self.called = True
        if not self._waiting:
            return self._forward(*args, **kwargs)
        args_before, kwargs_before = pytree.tree_map_only(torch.Tensor, torch.clone, (args, kwargs))
        flow = _Flow()
        with ExitStack() as hooks:
            for path, stub in self._waiting.items():
                hooks.callback(stub.register_forward_hook(flow.follow(path)).remove)
            with flow:
                output = self._forward(*args, **kwargs)
        read = flow.behind(tensors_in(output))
        for path in flow.followed - read:
            if self._matters(path, args_before, kwargs_before, output):
                read.add(path)
        self.ignored = (self.ignored | flow.followed) - read
        self._waiting = {path: stub for path, stub in self._waiting.items() if path not in read}
        return output

    def _matters(self, path: str, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> bool:
        """Whether the module gives something else, or raises, if a place gives NaN."""
        with state_kept(self._module):  # which also puts the quantizers back
            for place, stub in self._module.named_modules():
                if isinstance(stub, QuantStub) and stub.enabled:
                    stub.quantizer = _Unknown() if place == path else nn.Identity()
            try:
                other = self._forward(*args, **kwargs)
            except Exception:  # noqa: BLE001 - a backend's own code runs here, on what it never expected
                return True
            pairs = list(zip(tensors_in(output), tensors_in(other), strict=False))
        tellable = any(a.is_floating_point() and a.numel() for a, _ in pairs)
        return not tellable or not all(_are_same(a, b) for a, b in pairs)


class _Unknown(nn.Module):
    """Stands in for a quantizer."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """NaN, in the shape of ``x``."""
        return torch.full_like(x, float("nan"))


def _are_same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())


class _Flow(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's class has no types
    """Within the block, operations are followed: what is computed from what a place gives.

    Attributes:
        followed: The places that were called.
    """

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above
        self.followed: set[str] = set()
        self._behind: dict[int, set[str]] = {}  # by the place in memory

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """A part that is compiled stays so."""
        return True

    def follow(self, path: str) -> Callable[[nn.Module, Any, torch.Tensor], torch.Tensor]:
        """A hook for a place, which gives its result memory of its own."""

        def hook(_stub: nn.Module, _args: Any, result: torch.Tensor) -> torch.Tensor:
            result = result.clone()
            self.followed.add(path)
            self._behind[place_of(result)] = self.behind([result]) | {path}  # and other places before this one
            return result

        return hook

    def behind(self, tensors: list[torch.Tensor]) -> set[str]:
        """The places after some tensors."""
        return {path for tensor in tensors for path in self._behind.get(place_of(tensor), ())}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = tensors_in((args, kwargs or {}))
        paths, known = self.behind(given), {place_of(tensor) for tensor in given}
        result = func(*args, **(kwargs or {}))
        writes = getattr(getattr(func, "_schema", None), "is_mutable", True)
        for tensor in (*tensors_in(result), *(given if writes and paths else ())):
            place = place_of(tensor)
            # New memory may lie where memory that was given back has been.
            self._behind[place] = self._behind.get(place, set()) | paths if place in known else paths
        return result
