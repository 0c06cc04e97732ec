"""A compiler whose own code is broken is named, with the distribution that ships it."""

from types import SimpleNamespace

import pytest

from embedl_deploy import compile  # noqa: A004
from embedl_deploy.backend import Build, get_backend
from embedl_deploy.compiling.guarded import GuardedCompiler
from embedl_deploy.errors import InputError, PluginError
from support.compilers import Acme


def broken(**methods):
    """A compiler some methods of which return a value, or raise it."""
    compiler = Acme()
    for name, answer in methods.items():

        def method(*args, answer=answer):
            if isinstance(answer, BaseException):
                raise answer
            return answer() if callable(answer) else answer

        setattr(compiler, name, method)
    return compiler


@pytest.mark.parametrize(
    ("methods", "what"),
    [
        ({"build": RuntimeError("no licence.")}, r"fails in build\(\): RuntimeError: no licence\. Repair"),
        ({"build": b"engine"}, r"returns b'engine' from build\(\); expected a Build\. Repair"),
        ({"build": None}, r"returns None from build\(\); expected a Build"),
        (
            {"build": lambda: Build("text", (), "edge", 0.1)},
            r"fails in build\(\): Build: engine is 'text'; expected bytes\.",
        ),
        (
            {"build": lambda: Build(b"", ("a",), "edge", 0.1)},
            r"Build: layers\[0\] is 'a'; expected a tuple",
        ),
        (
            {"build": lambda: Build(b"", (), "edge", 0.1, "oh")},
            r"Build: messages is 'oh'; expected a tuple",
        ),
        ({"missing": OSError("no such library")}, r"fails in missing\(\): OSError: no such library"),
        ({"missing": False}, r"returns False from missing\(\); expected text or None"),
        (
            {"missing": "all of it", "command": 3},
            r"returns 3 from command\(\); expected a command line as text, or None",
        ),
        ({"describe": 1.7}, r"returns 1.7 from describe\(\); expected its name and version as text"),
    ],
)
def test_is_named_with_its_distribution(use, file, tmp_path, methods, what):
    use(broken(**methods))
    origin = get_backend("sensai").origin
    with pytest.raises(PluginError, match=what) as caught:
        compile(file, tmp_path / "e")
    assert str(caught.value).startswith(f"Compiler 'acme' of backend 'sensai' (from {origin}) ")
    assert ".." not in str(caught.value)
    assert caught.value.distribution == origin
    assert list(tmp_path.iterdir()) == []


def test_wrong_suffix(use, file):
    compiler = Acme()
    compiler.suffix = "engine"
    use(compiler)
    with pytest.raises(PluginError, match="has the suffix 'engine'; expected the ending of a file's name"):
        compile(file)


def test_errors_of_ours_pass(use, file, tmp_path):
    use(broken(build=InputError("no such target")))
    with pytest.raises(InputError, match="no such target"):
        compile(file, tmp_path / "e")


def test_an_extensions_compiler_is_its_own():
    listed = SimpleNamespace(kind="compiler", name="acme", plugin="sensai.more", origin="more 2.0")
    backend = SimpleNamespace(name="sensai", origin="main 1.0", contributions=(listed,))
    with pytest.raises(PluginError, match=r"of backend 'sensai\.more' \(from more 2\.0\) .*Repair or update more,"):
        GuardedCompiler(backend, broken(missing=ValueError("x"))).missing()
