"""What docs/write_a_backend.md shows of a new backend's files is what they hold."""

import ast
import re
from pathlib import Path

from embedl_deploy.scaffold.names import names_of
from embedl_deploy.scaffold.writing import rendered_files

TUTORIAL = Path(__file__).parents[3] / "docs" / "write_a_backend.md"
#: Those that a new backend has, as the tutorial shows it; what it is grown by comes after.
SHOWN, GROWN = TUTORIAL.read_text(encoding="utf-8").split("## Trying patterns")


def definitions(text: str) -> dict[str, str]:
    """The source of every function and class at the top of the page's blocks, by name."""
    found = {}
    for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        for node in ast.parse(block).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                found[node.name] = ast.get_source_segment(block, node)
    return found


def test_excerpts_are_from_the_files():
    files = "\n".join(rendered_files(names_of("acme", "Acme Edge NPU")).values())
    shown = definitions(SHOWN)
    assert {"kernel_limit", "AcmeConv", "ConvBNReLUPattern", "first_convolution_in_float", "KernelSize"} <= shown.keys()
    for name, source in shown.items():
        assert source in files, f"{name} is another in the scaffold's templates"


def test_what_it_is_grown_by_is_new():
    files = "\n".join(rendered_files(names_of("acme")).values())
    grown = definitions(GROWN)
    assert {"HardtanhToReLUPattern", "AcmeConvAdd", "ConvAddReLUPattern", "everything"} <= grown.keys()
    for name in grown.keys() - {"embedl_deploy_quantization_policies"}:
        assert f" {name}(" not in files


def test_every_file_of_the_package_is_told_of():
    for path in rendered_files(names_of("acme")):
        if path.suffix == ".py" and path.name != "__init__.py":
            assert f"**`{path.name}`**" in SHOWN or f"**`{path.parent}/`**" in SHOWN, path


def test_what_the_command_prints_is_true():
    (title,) = re.findall(r"^  Acme Edge NPU: (.*)$", SHOWN, flags=re.MULTILINE)
    plugin = next(text for path, text in rendered_files(names_of("acme")).items() if path.name == "plugin.py")
    assert f'"{title}"' in plugin
