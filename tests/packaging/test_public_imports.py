"""The backends of this repository use what a third party can: public packages, and the names in their ``__all__``."""

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from handbook.api import ROOMS, public_names

import embedl_deploy.tensorrt
import embedl_deploy_onnxruntime
import embedl_deploy_sensai_stub

BACKENDS = {
    package.__name__: Path(package.__file__).parent
    for package in (embedl_deploy.tensorrt, embedl_deploy_onnxruntime, embedl_deploy_sensai_stub)
}
SOURCES = [(name, file) for name, folder in BACKENDS.items() for file in sorted(folder.rglob("*.py"))]


def imported_from_elsewhere(source: str, backend: str) -> Iterator[tuple[str, str | None]]:
    """(module, name) of every import from embedl_deploy but the backend's own; no name in ``import module``."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            found = [(node.module or "", alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            found = [(alias.name, None) for alias in node.names]
        else:
            continue
        for module, name in found:
            if module.split(".")[0].startswith("embedl_deploy") and not f"{module}.".startswith(f"{backend}."):
                yield module, name


def private(source: str, backend: str) -> list[str]:
    """Imports of what is not public."""
    return [
        f"from {module} import {name}" if name else f"import {module}"
        for module, name in imported_from_elsewhere(source, backend)
        if module not in ROOMS or (name is not None and name not in public_names(module))
    ]


@pytest.mark.parametrize(("backend", "file"), SOURCES, ids=lambda value: getattr(value, "stem", value))
def test_backends_import_public_names_only(backend: str, file: Path) -> None:
    assert private(file.read_text(encoding="utf-8"), backend) == []


@pytest.mark.parametrize(
    "line",
    [
        "from embedl_deploy.graph.effects import Effects",
        "from embedl_deploy.graph import effects",
        "import embedl_deploy.graph.lookup",
        "from embedl_deploy import files",
        "def inside():\n    from embedl_deploy.files import atomic_write",
    ],
)
def test_private_imports_are_seen(line: str) -> None:
    assert len(private(line, "embedl_deploy.tensorrt")) == 1
    assert private("from embedl_deploy.graph import owner", "embedl_deploy.tensorrt") == []
    assert private("from embedl_deploy.tensorrt.gpus import x", "embedl_deploy.tensorrt") == []


#: Whatever code of a backend imports in a process where everything that is not public is hidden from it.
HIDING = """
import builtins, importlib, sys
backends, rooms = sys.argv[1].split(","), set(sys.argv[2].split(","))
real = builtins.__import__

def guarded(name, globals=None, locals=None, fromlist=(), level=0):
    importer = (globals or {}).get("__name__", "")
    own = next((backend for backend in backends if f"{importer}.".startswith(f"{backend}.")), None)
    if own and level == 0 and name.startswith("embedl_deploy") and not f"{name}.".startswith(f"{own}."):
        module = real(name, globals, locals, ("*",), 0)
        allowed = getattr(module, "__all__", None) or [each for each in vars(module) if not each.startswith("_")]
        if name not in rooms or not set(fromlist or ()) <= set(allowed):
            raise ImportError(f"{importer} imports {fromlist} from {name}, which is hidden")
    return real(name, globals, locals, fromlist, level)

builtins.__import__ = guarded
import torch
from torch import nn
from embedl_deploy import transform
model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)).eval()
for backend in ("tensorrt", "onnxruntime", "sensai"):
    print(transform(model, torch.randn(1, 3, 8, 8), backend=backend).report["applied_count"])
"""


def in_a_process(rooms: Iterable[str]) -> "subprocess.CompletedProcess[str]":
    arguments = [",".join(BACKENDS), ",".join(rooms)]
    return subprocess.run([sys.executable, "-c", HIDING, *arguments], capture_output=True, text=True, check=False)


def test_backends_work_where_everything_else_is_hidden() -> None:
    done = in_a_process(ROOMS)
    assert done.returncode == 0, done.stderr
    assert all(int(count) > 0 for count in done.stdout.split())
    done = in_a_process(set(ROOMS) - {"embedl_deploy.graph"})
    assert "from embedl_deploy.graph, which is hidden" in done.stderr
