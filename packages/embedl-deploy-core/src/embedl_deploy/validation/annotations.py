"""Names in annotations that are written in quotes, such as those of classes that only type checkers import."""

from typing import Any


class _ByName(type):
    """A class that is imported for type checkers only: its instances are told by its name, and nothing is imported."""

    def __getattr__(cls, name: str) -> "_ByName":
        if name.startswith("__"):
            raise AttributeError(name)
        return _ByName(name, (), {})

    def __getitem__(cls, arguments: Any) -> "_ByName":
        return cls

    def __instancecheck__(cls, instance: object) -> bool:
        return any(base.__name__ == cls.__name__ for base in type(instance).__mro__)


class Namespace(dict[str, Any]):
    """Names for annotations in quotes: those of a module, and a stand-in for any other."""

    def __missing__(self, name: str) -> Any:
        builtin = self["__builtins__"]
        found = (builtin if isinstance(builtin, dict) else vars(builtin)).get(name)
        return _ByName(name, (), {}) if found is None else found
