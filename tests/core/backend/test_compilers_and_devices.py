"""The hooks for compilers and devices: what is loaded, and what is refused."""

import pytest

from embedl_deploy.backend import get_backend, list_backends

COMPILER = """
    from embedl_deploy.backend import Build, Compiler
    from embedl_deploy.engine import Device

    class Acme(Compiler):
        name = "acmec"
        def missing(self): return None
        def describe(self): return "Acme 1"
        def command(self, onnx, engine, options): return None
        def build(self, onnx, options, progress): return Build(b"", (), "edge", 0.0)

    @hookimpl
    def embedl_deploy_describe():
        return BackendInfo("Acme Edge NPU")
"""
HOOKS = """
    @hookimpl
    def embedl_deploy_compilers():
        return [Acme()]

    @hookimpl
    def embedl_deploy_devices():
        return [Device("Edge", "edge", 1e9, {"int8": 1e12}, "datasheet")]
"""


def test_both_are_loaded(install):
    install("acme", COMPILER + HOOKS)
    backend = get_backend("acme")
    assert [compiler.name for compiler in backend.compilers] == ["acmec"]
    assert [device.name for device in backend.devices] == ["Edge"]


def test_a_backend_needs_neither(install):
    install("acme")
    backend = get_backend("acme")
    assert (backend.compilers, backend.devices) == ((), ())


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "def embedl_deploy_compilers(): return [3]",
            "returns 3 from embedl_deploy_compilers; expected objects of Compiler",
        ),
        ("def embedl_deploy_compilers(): return Acme()", "expected a list or None"),
        ("def embedl_deploy_compilers(): return [Acme]", "expected objects of Compiler, with a name"),
        (
            "def embedl_deploy_devices(): return ['RTX']",
            "returns 'RTX' from embedl_deploy_devices; expected objects of Device",
        ),
        ("def embedl_deploy_compilers(): raise OSError('gone')", "fails in embedl_deploy_compilers: OSError: gone"),
    ],
)
def test_what_is_wrong_is_named(install, code, message):
    install("acme", f"{COMPILER}\n    @hookimpl\n    {code}\n")
    status = list_backends()["acme"]
    assert not status.usable
    assert message in status.error
    assert "acme 1.2" in status.error


def test_an_extension_brings_a_compiler_that_is_preferred(install):
    install("acme", COMPILER + HOOKS)
    install(
        "acme.faster",
        """
        from embedl_deploy.backend import Build, Compiler

        class Faster(Compiler):
            name = "faster"
            def missing(self): return None
            def describe(self): return "Faster 1"
            def command(self, onnx, engine, options): return None
            def build(self, onnx, options, progress): return Build(b"", (), "edge", 0.0)

        @hookimpl
        def embedl_deploy_compilers():
            return [Faster()]
        """,
        distribution="faster",
    )
    assert [compiler.name for compiler in get_backend("acme").compilers] == ["faster", "acmec"]
