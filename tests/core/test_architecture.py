"""The rooms of the core and the directions of their imports, read from the source."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest

import embedl_deploy

PACKAGE = Path(embedl_deploy.__file__).parent
#: Lowest floor first: a room imports only from itself and from rooms before it.
FLOORS = [
    "errors",
    "files",
    "logs",
    "artifact",
    "engine",
    "graph",
    "modules",
    "patterns",
    "conversions",
    "backend",
    "capture",
    "verify",
    "plan",
    "pipeline",
    "quantize",
    "export",
    "checking",
    "compiling",
    "stages",
    "__init__",
    "cli",
    "__main__",
]
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).parts[0] != "tensorrt")


def room_of(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported_modules(path):
    """Modules of the core that a file imports, those for type checking only left out."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("embedl_deploy"):
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("embedl_deploy"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path):
    here = FLOORS.index(room_of(path))
    for module in imported_modules(path):
        parts = module.split(".")
        room = parts[1] if len(parts) > 1 else "__init__"
        assert FLOORS.index(room) <= here, f"{path.name} imports {module}, which is on a higher floor"


def test_no_cycles_between_files():
    names = {".".join(("embedl_deploy", *path.relative_to(PACKAGE).with_suffix("").parts)): path for path in FILES}
    names = {name.removesuffix(".__init__"): path for name, path in names.items()}
    edges = {name: [m for m in imported_modules(path) if m in names] for name, path in names.items()}
    done, path_here = set(), []

    def visit(name):
        assert name not in path_here, f"import cycle: {' → '.join([*path_here, name])}"
        if name not in done:
            path_here.append(name)
            for other in edges[name]:
                visit(other)
            path_here.pop()
            done.add(name)

    for name in edges:
        visit(name)


def test_every_room_is_in_the_design_document():
    rooms = {room_of(path) for path in FILES} - {"__init__"}
    assert rooms == set(FLOORS) - {"__init__"}


@pytest.mark.parametrize(
    "module",
    [
        "embedl_deploy",
        "embedl_deploy.backend",
        "embedl_deploy.artifact",
        "embedl_deploy.capture",
        "embedl_deploy.cli",
        "embedl_deploy.checking",
        "embedl_deploy.compiling",
        "embedl_deploy.engine",
        "embedl_deploy.conversions",
        "embedl_deploy.export",
        "embedl_deploy.graph",
        "embedl_deploy.modules",
        "embedl_deploy.patterns",
        "embedl_deploy.quantize",
        "embedl_deploy.stages",
        "embedl_deploy.tensorrt",
        "embedl_deploy.tensorrt.modules",
        "embedl_deploy.tensorrt.patterns",
        "embedl_deploy.verify",
    ],
)
def test_public_names_exist_and_are_documented(module):
    namespace = importlib.import_module(module)
    assert namespace.__doc__
    assert len(set(namespace.__all__)) == len(namespace.__all__)
    for name in namespace.__all__:
        value = getattr(namespace, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), f"{module}.{name} has no docstring"
