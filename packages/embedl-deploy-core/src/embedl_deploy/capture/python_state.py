"""The values of Python that a model keeps in attributes, and which of them forward has changed."""

from collections.abc import Hashable
from typing import Any

import torch
from torch import nn

_PLAIN = (bool, int, float, complex, str, bytes, type(None))
#: What every module has; tensors and modules in it are looked at elsewhere, hooks are not.
_OF_TORCH = frozenset(vars(nn.Module())) - {"training"}
_NUMBERS = (int, float)
#: How far a number is moved to see what a call would do with it after many others.
_FAR = 10007


class PythonState:
    """Attributes of a model's modules: numbers, text, tensors that are no buffers, and containers and objects of such.

    Args:
        model: The model as it is now.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        # What was there is kept, so that no new object has its id.
        self._before = {key: (value, _fingerprint(value, set())) for key, value in self._attributes().items()}

    def changed(self) -> list[str]:
        """Paths of the attributes that are other ones now, or hold something else."""
        now = self._attributes()
        return [
            f"{path}.{name}" if path else name
            for (path, name) in {**self._before, **now}
            if self._is_changed((path, name), now)
        ]

    def move_numbers_on(self) -> bool:
        """Move numbers that have changed as far as many calls would; whether there are any."""
        found = False
        for (path, name), new in self._attributes().items():
            old, _ = self._before.get((path, name), (None, None))
            if type(old) in _NUMBERS and type(new) is type(old) and new != old:
                setattr(self._model.get_submodule(path), name, new + (new - old) * _FAR)
                found = True
        return found

    def _is_changed(self, key: tuple[str, str], now: dict[tuple[str, str], Any]) -> bool:
        if key not in now or key not in self._before:
            return True
        return self._before[key][1] != _fingerprint(now[key], set())

    def _attributes(self) -> dict[tuple[str, str], Any]:
        return {
            (path, name): value
            for path, module in self._model.named_modules()
            if not type(module).__module__.startswith("torch.")
            for name, value in vars(module).items()
            if name not in _OF_TORCH
        }


def _fingerprint(value: Any, above: set[int]) -> Hashable:
    """Something that is equal for values that have not changed."""
    if type(value) in _PLAIN:
        return type(value), value
    if isinstance(value, torch.Tensor):
        return id(value), 0 if value.is_inference() else value._version
    if isinstance(value, nn.Module) or id(value) in above:
        return id(value)
    above = above | {id(value)}
    if isinstance(value, (list, tuple)):
        return type(value), tuple(_fingerprint(item, above) for item in value)
    if isinstance(value, dict):
        return type(value), tuple((_fingerprint(k, above), _fingerprint(v, above)) for k, v in value.items())
    if isinstance(value, (set, frozenset)):
        return type(value), frozenset(_fingerprint(item, above) for item in value)
    if isinstance(value, type) or callable(value) or type(value).__module__.startswith("torch"):
        return id(value)
    return id(value), _fingerprint(getattr(value, "__dict__", None), above)
