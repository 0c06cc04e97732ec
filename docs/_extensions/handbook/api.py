"""The reference of public names, room by room, from docstrings."""

import importlib
import inspect
import re
import sys
from functools import cache
from types import ModuleType

#: Every room with public names. What stands in several is described in the first of them.
ROOMS = (
    "embedl_deploy",
    "embedl_deploy.patterns",
    "embedl_deploy.modules",
    "embedl_deploy.conversions",
    "embedl_deploy.fusions",
    "embedl_deploy.quantize",
    "embedl_deploy.numerics",
    "embedl_deploy.recomposition",
    "embedl_deploy.backend",
    "embedl_deploy.plan",
    "embedl_deploy.export",
    "embedl_deploy.float16",
    "embedl_deploy.shards",
    "embedl_deploy.sensitivity",
    "embedl_deploy.tuning",
    "embedl_deploy.page",
    "embedl_deploy.checking",
    "embedl_deploy.compiling",
    "embedl_deploy.stages",
    "embedl_deploy.engine",
    "embedl_deploy.artifact",
    "embedl_deploy.verify",
    "embedl_deploy.capture",
    "embedl_deploy.graph",
    "embedl_deploy.errors",
    "embedl_deploy.testing",
    "embedl_deploy.scaffold",
    "embedl_deploy.cli",
    "embedl_deploy.tensorrt",
    "embedl_deploy.tensorrt.patterns",
    "embedl_deploy.tensorrt.modules",
    "embedl_deploy.tensorrt.compilers",
    "embedl_deploy_onnxruntime",
    "embedl_deploy_onnxruntime.patterns",
    "embedl_deploy_onnxruntime.modules",
    "embedl_deploy_onnxruntime.checks",
    "embedl_deploy_onnxruntime.compiler",
    "embedl_deploy_sensai_stub",
    "embedl_deploy_sensai_stub.patterns",
    "embedl_deploy_sensai_stub.modules",
    "embedl_deploy_sensai_stub.checks",
)


def public_names(room: str) -> list[str]:
    """What a room offers: its ``__all__``; of a module without one, the public classes that it defines."""
    module = importlib.import_module(room)
    if hasattr(module, "__all__"):
        return list(module.__all__)
    return [
        name
        for name, value in vars(module).items()
        if inspect.isclass(value) and value.__module__ == room and not name.startswith("_")
    ]


@cache
def homes() -> dict[int, str]:
    """The full name under which an object is described, by its identity; classes and functions only."""
    found: dict[int, str] = {}
    for room in ROOMS:
        module = importlib.import_module(room)
        for name in sorted(public_names(room), key=lambda name: name != getattr(getattr(module, name), "__name__", "")):
            value = getattr(module, name)
            if inspect.isclass(value) or inspect.isroutine(value):
                found.setdefault(id(value), f"{room}.{name}")
    return found


def room_reference(room: str) -> str:
    """What a room is for, and every name of it, described here or linked to where it is.

    Raises:
        ValueError: The room is not one of :data:`ROOMS`.
    """
    if room not in ROOMS:
        raise ValueError(f"{room!r} is not a room of handbook.api.ROOMS")
    module = importlib.import_module(room)
    entries = [_entry(room, name, module) for name in sorted(public_names(room), key=str.lower)]
    description = inspect.getdoc(module) or ""
    return f"```{{eval-rst}}\n{description}\n\n.. py:currentmodule:: {room}\n\n" + "\n\n".join(entries) + "\n```"


def _entry(room: str, name: str, module: ModuleType) -> str:
    value, full = getattr(module, name), f"{room}.{name}"
    home = homes().get(id(value))
    if home is None:
        text = "\n".join(f"   {line}" for line in data_comment(module, name))
        return f".. py:data:: {full}\n\n{text}"
    if home != full:
        role = "class" if inspect.isclass(value) else "func"
        return f".. py:attribute:: {full}\n   :no-index:\n\n   The same as :{role}:`{home}`."
    if not inspect.isclass(value):
        return f".. autofunction:: {full}"
    bases = "\n   :show-inheritance:" if value.__bases__ != (object,) else ""
    return f".. autoclass:: {full}\n   :members:{bases}"


def data_comment(module: ModuleType, name: str) -> list[str]:
    """What is written of a value: the ``#:`` comment where it is defined, else the first line of its room."""
    if name == "__version__":
        return ["Version of the installed distribution."]
    package = module.__name__.partition(".")[0]
    loaded = [other for key, other in sorted(sys.modules.items()) if key.startswith(f"{package}.")]
    for candidate in (module, *loaded):
        comment = re.search(rf"((?:^#:.*\n)+)^{name}\b *[:=]", inspect.getsource(candidate), re.MULTILINE)
        if comment:
            return [line.removeprefix("#:").strip() for line in comment[1].splitlines()]
    return (inspect.getdoc(module) or "").splitlines()[:1]
