"""The backend as core sees it: installed, discovered, described, written against the public API."""

import ast
import re
from importlib import metadata
from pathlib import Path

import pytest

import embedl_deploy_sensai_stub as stub
from embedl_deploy.backend import discover_backends, get_backend, list_backends

SOURCE = Path(stub.__file__).parent
README = Path(__file__).parents[2] / "packages" / "embedl-deploy-sensai-stub" / "README.md"
ROOMS = (
    *("artifact", "backend", "conversions", "engine", "errors", "graph", "modules", "numerics", "patterns", "quantize"),
)
PUBLIC = {"embedl_deploy", *(f"embedl_deploy.{name}" for name in ROOMS)}


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


def test_readme_prints_what_it_says(capsys):
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert len(blocks) == 3
    exec(compile("".join(blocks[:2]), str(README), "exec"), {})
    printed = capsys.readouterr().out
    assert "Conv2d: kernel is 5×5" in printed
    assert "GELU: the engine has only ReLU" in printed
    assert "Exact rewrite: fill the kernel up with zeros to 3×3" in printed
    assert "max |Δ| = " in printed
    assert "policy: sensai's 'fixed_point'" in printed


def test_readme_names_every_file_and_every_pattern():
    text = README.read_text(encoding="utf-8")
    files = {path.relative_to(SOURCE).parts[0] for path in SOURCE.rglob("*.py")}
    assert [name for name in files - {"__init__.py"} if f"`{name}`" not in text and f"`{name}/`" not in text] == []
    assert [pattern.name for pattern in stub.SENSAI_PATTERNS if pattern.name not in text] == []


def test_every_rule_is_in_the_readme():
    text = README.read_text(encoding="utf-8")
    assert [rule.id for rule in get_backend("sensai").check_rules if f"| {rule.id} |" not in text] == []
