"""The rooms of the core and the directions of their imports, read from the source."""

import importlib
import inspect
from pathlib import Path

import pytest
from handbook.api import ROOMS, public_names
from handbook.rooms import documented_rooms, files_of, imported_modules, imported_room, room_of

import embedl_deploy
import embedl_deploy.tensorrt
import embedl_deploy_onnxruntime
import embedl_deploy_sensai_stub

PACKAGE = Path(embedl_deploy.__file__).parent
#: Lowest floor first: a room imports only from itself and from rooms before it.
FLOORS = list(documented_rooms())
FILES = files_of(PACKAGE)
BACKENDS = [
    Path(backend.__file__).parent
    for backend in (embedl_deploy.tensorrt, embedl_deploy_onnxruntime, embedl_deploy_sensai_stub)
]
#: A file that is longer has more than one concept.
MOST_LINES = 250


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down(path):
    here = FLOORS.index(room_of(path, PACKAGE))
    for module in imported_modules(path):
        room = imported_room(module)
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
    assert {room_of(path, PACKAGE) for path in FILES} == set(FLOORS)


def test_no_file_is_long():
    files = [*FILES, *(path for backend in BACKENDS for path in backend.rglob("*.py"))]
    lines = {str(path): len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    long = {path: count for path, count in lines.items() if count > MOST_LINES}
    assert not long, f"over {MOST_LINES} lines: move one of its concepts into a file of its own"


@pytest.mark.parametrize("module", ROOMS)
def test_public_names_exist_and_are_documented(module):
    namespace = importlib.import_module(module)
    assert namespace.__doc__
    names = public_names(module)
    assert len(set(names)) == len(names)
    for name in names:
        value = getattr(namespace, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), f"{module}.{name} has no docstring"
