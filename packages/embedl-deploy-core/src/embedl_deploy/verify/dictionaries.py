"""Records and restores dictionaries, including the attributes of modules and other objects."""

from collections import OrderedDict
from collections.abc import Iterator
from operator import is_
from typing import Any

from embedl_deploy.verify.kept import ATOMS, NOTHING, Change, Kept, is_equal


class Items(Kept):
    """A dictionary. The attributes of an object are one."""

    def __init__(self, name: str, items: dict[Any, Any]) -> None:
        super().__init__(name)
        self._items = items
        self._kind: Any = OrderedDict if isinstance(items, OrderedDict) else dict
        self._keys, self._values = tuple(self._kind.keys(items)), tuple(self._kind.values(items))
        if self._keys:
            self.inside = self._inside()

    def _inside(self) -> list[tuple[Any, str]]:
        return [(part, self.name) for part in (*self._keys, *self._values)]

    def _name_of(self, key: Any) -> str:
        return self.name

    def changes(self) -> Iterator[Change]:
        """See :class:`Kept`."""
        if not self._differs():
            return
        before = {_identity(key): (key, value) for key, value in zip(self._keys, self._values, strict=True)}
        now = {_identity(key): (key, value) for key, value in self._kind.items(self._items)}
        for identity in {**before, **now}:
            key, _ = before.get(identity) or now[identity]
            (_, old), (_, new) = (side.get(identity, (key, NOTHING)) for side in (before, now))
            if not is_equal(new, old):
                yield Change(self._name_of(key), old, new, lambda value, key=key: self._write(key, value))  # type: ignore[misc]  # of the loop
        if self._has_order and before.keys() == now.keys() and [*before] != [*now]:
            yield Change(self.name, NOTHING, NOTHING, lambda _: self._restore())

    _has_order = True

    def _write(self, key: Any, value: Any) -> None:
        if value is NOTHING:
            self._kind.pop(self._items, key, None)
        else:
            self._kind.__setitem__(self._items, key, value)

    def _differs(self) -> bool:
        items = self._items
        if self._kind.__len__(items) != len(self._keys):
            return True
        return not (
            all(map(is_, self._kind.values(items), self._values)) and all(map(is_, self._kind.keys(items), self._keys))
        )

    def _restore(self) -> None:
        self._kind.clear(self._items)
        for key, value in zip(self._keys, self._values, strict=True):
            self._kind.__setitem__(self._items, key, value)


def _identity(key: Any) -> Any:
    return (type(key), key) if type(key) in ATOMS else id(key)


class Empty(Kept):
    """All dictionaries that are empty: those of a module's hooks are ten."""

    def __init__(self) -> None:
        super().__init__("")
        self._items: list[tuple[str, dict[Any, Any]]] = []

    def add(self, name: str, items: dict[Any, Any]) -> None:
        """Keep one more."""
        self._items.append((name, items))

    def changes(self) -> Iterator[Change]:
        """See :class:`Kept`."""
        for name, items in self._items:
            if items:
                yield Change(name, {}, items, lambda _, items=items: items.clear())  # type: ignore[misc]  # of the loop

    def _differs(self) -> bool:
        return any(items for _, items in self._items)

    def _restore(self) -> None:
        for _, items in self._items:
            items.clear()


class Attributes(Items):
    """Attributes, parameters, buffers or parts of a module: each has a name of its own."""

    _has_order = False

    def names(self) -> Iterator[str]:
        """What each is called."""
        return map(self._name_of, self._keys)

    def _name_of(self, key: Any) -> str:
        return f"{self.name}.{key}" if self.name else str(key)

    def _inside(self) -> list[tuple[Any, str]]:
        return [
            (value, self._name_of(key))
            for key, value in zip(self._keys, self._values, strict=True)
            if type(value) not in ATOMS
        ]
