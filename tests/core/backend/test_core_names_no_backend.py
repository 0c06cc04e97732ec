"""Core holds no hardware name: what it knows of hardware it is told by plugins."""

import re
from pathlib import Path

SOURCE = Path(__file__).parents[3] / "packages" / "embedl-deploy-core" / "src"
NAMES = re.compile("tensorrt|sensai|nvidia|lattice", re.IGNORECASE)


def named_in(folder: Path) -> dict[str, list[str]]:
    """Hardware names by file, in the text of files and in their paths."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc":
            text = f"{path.relative_to(folder)}\n{path.read_text(encoding='utf-8')}"
            if names := NAMES.findall(text):
                found[str(path.relative_to(folder))] = names
    return found


def test_core_names_no_backend():
    assert len(list(SOURCE.rglob("*.py"))) > 40, "this looks at core's source"
    assert named_in(SOURCE) == {}


def test_it_would_be_seen(tmp_path):
    (tmp_path / "mine.py").write_text("import embedl_deploy.TensorRT", encoding="utf-8")
    (tmp_path / "lattice.txt").write_text("", encoding="utf-8")
    assert named_in(tmp_path) == {"lattice.txt": ["lattice"], "mine.py": ["TensorRT"]}
