"""The backend as core sees it: installed, discovered, described, written against the public API."""

import ast
import re
from importlib import metadata
from pathlib import Path

import pytest

import embedl_deploy_sensai_stub as stub
from embedl_deploy.backend import discover_backends, get_backend, list_backends

SOURCE = Path(stub.__file__).parent
PUBLIC = {f"embedl_deploy.{name}" for name in ("artifact", "backend", "patterns", "modules", "conversions", "quantize")}


def test_is_discovered_and_usable():
    assert discover_backends()["sensai"].startswith("embedl-deploy-sensai-stub ")
    assert list_backends()["sensai"].usable


def test_describes_itself_and_gives_its_patterns():
    backend = get_backend("sensai")
    assert backend.info.title == "Lattice sensAI (stub)"
    assert list(backend.conversions) == stub.SENSAI_CONVERSION_PATTERNS
    assert list(backend.fusions) == stub.SENSAI_FUSION_PATTERNS
    assert backend.patterns == stub.SENSAI_PATTERNS


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_only_the_public_api(path):
    imported = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            imported.add(node.module or "")
        elif isinstance(node, ast.Import):
            imported.update(alias.name for alias in node.names)
    of_core = {name for name in imported if name.split(".")[0] == "embedl_deploy"}
    assert of_core <= PUBLIC


def test_has_one_version_with_core_and_ships_its_types():
    assert metadata.version("embedl-deploy-sensai-stub") == metadata.version("embedl-deploy-core")
    assert (SOURCE / "py.typed").is_file()


def test_readme_example_runs(capsys):
    readme = Path(__file__).parents[2] / "packages" / "embedl-deploy-sensai-stub" / "README.md"
    blocks = re.findall(r"```python\n(.*?)```", readme.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) == 2
    exec(compile("".join(blocks), str(readme), "exec"), {})
    printed = capsys.readouterr().out
    assert "Conv2d: kernel is 5×5" in printed
    assert "GELU: the engine has only ReLU" in printed
    assert "max |Δ| = " in printed
    assert "policy: sensai's 'fixed_point'" in printed
