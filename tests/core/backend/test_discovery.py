"""Finding plugins without importing them."""

import subprocess
import sys

import pytest

from embedl_deploy.backend import discover_backends, get_backend, list_backends
from embedl_deploy.backend.loader.discovery import installed_plugins
from embedl_deploy.errors import PluginError


def test_finds_what_is_installed(install):
    install("acme")
    found = discover_backends()
    assert found["acme"] == "acme 1.2"
    assert {"tensorrt", "sensai"} <= set(found)


def test_imports_nothing(install):
    install("acme", "raise RuntimeError('imported')", raw=True)
    assert discover_backends()["acme"] == "acme 1.2"
    assert "acme_plugin" not in sys.modules
    assert "RuntimeError: imported" in list_backends()["acme"].error, "importing it does raise"


def test_leaves_extensions_out(install):
    install("tensorrt.acme", "")
    assert "tensorrt.acme" not in discover_backends()
    (source,) = (s for s in installed_plugins() if s.name == "tensorrt.acme")
    assert (source.is_extension, source.backend, source.origin) == (True, "tensorrt", "acme 1.2")


def test_two_distributions_of_one_backend_are_both_named(install):
    install("acme")
    install("acme", distribution="rival", version="3")
    assert discover_backends()["acme"] == "acme 1.2, rival 3"


@pytest.mark.parametrize(
    "requirement", ["embedl-deploy-core>=99", "Embedl_Deploy.Core >=99", "embedl-deploy-core<0.0.1; python_version>'3'"]
)
def test_a_plugin_for_another_core_is_refused(install, requirement):
    install("acme", "raise RuntimeError('imported')", requires=requirement, raw=True)
    with pytest.raises(PluginError, match=r"acme 1\.2") as caught:
        get_backend("acme")
    message = str(caught.value)
    assert "does not fit the installed core" in message
    assert "embedl-deploy-core 0." in message, "says what is installed"
    assert "imported" not in message, "code for another core is not run"


@pytest.mark.parametrize(
    "requirement",
    ["embedl-deploy-core>=0.0.1", "embedl-deploy-core>=99; extra=='next'", "torch>=99", "not a requirement at all"],
)
def test_other_requirements_do_not_matter(install, describe, requirement):
    install("acme", describe, requires=requirement)
    assert get_backend("acme").name == "acme"


def test_importing_embedl_deploy_imports_no_backend():
    code = (
        "import sys, embedl_deploy; from embedl_deploy.backend import discover_backends; names = discover_backends();"
        "assert {'tensorrt', 'sensai'} <= set(names), names;"
        "print([m for m in sys.modules if 'tensorrt' in m or 'sensai' in m])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
