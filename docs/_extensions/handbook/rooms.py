"""The rooms of the core as docs/design.md has them, and what their files import."""

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import embedl_deploy

CORE = Path(embedl_deploy.__file__).parent
DOCUMENT = Path(__file__).parents[2] / "design.md"
_ROW = re.compile(r"^\| `(?P<room>[\w.]+)` \| (?P<holds>.+) \|$", re.MULTILINE)


@functools.cache
def documented_rooms() -> dict[str, str]:
    """What each room holds, lowest floor first."""
    return {row["room"]: row["holds"] for row in _ROW.finditer(DOCUMENT.read_text(encoding="utf-8"))}


def room_of(file: Path, package: Path) -> str:
    """The room of a file: the folder or module right below the package, or a folder in it that is a room of its own."""
    parts = file.relative_to(package).with_suffix("").parts
    inner = ".".join(parts[:2])
    return inner if len(parts) > 2 and inner in documented_rooms() else parts[0]


def files_of(package: Path) -> list[Path]:
    """The source files of the core; a backend's package may be linked into the same folder."""
    return sorted(path for path in package.rglob("*.py") if room_of(path, package) != "tensorrt")


def imported_modules(file: Path) -> Iterator[str]:
    """Modules of embedl_deploy that a file imports, those for type checking included."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("embedl_deploy"):
            folder = CORE.joinpath(*node.module.split(".")[1:])
            for alias in node.names:  # a name, or a module below
                is_module = (folder / f"{alias.name}.py").is_file() or (folder / alias.name / "__init__.py").is_file()
                yield f"{node.module}.{alias.name}" if is_module else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("embedl_deploy"))


def imported_room(module: str) -> str:
    """The room that a module of the core stands in; ``"__init__"`` for the package itself."""
    parts = module.split(".")[1:]
    inner = ".".join(parts[:2])
    return inner if inner in documented_rooms() else parts[0] if parts else "__init__"
