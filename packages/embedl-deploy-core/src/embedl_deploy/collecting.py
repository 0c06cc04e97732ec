"""Collects the classes that the files of a package define, so that a new class only needs a new file."""

import importlib
import pkgutil
from types import ModuleType
from typing import TypeVar

BaseT = TypeVar("BaseT")


def classes_in(package: ModuleType, base: type[BaseT]) -> list[type[BaseT]]:
    """The classes with a base that the files of a package define, in the order of the files' names and their lines.

    Classes whose names start with an underscore are left out, as bases of others; so are classes that a file only
    imports. Folders below the package are not looked at.

    Args:
        package: A package. Its modules are imported.
        base: The base class.
    """
    classes: dict[type[BaseT], None] = {}  # an alias makes no second class
    for info in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        module = importlib.import_module(info.name)
        for name, value in vars(module).items():
            is_one = isinstance(value, type) and issubclass(value, base)
            if is_one and value.__module__ == info.name and not name.startswith("_"):
                classes[value] = None
    return list(classes)
