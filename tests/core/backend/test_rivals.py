"""Two distributions with a backend of one name: what is said, and how to choose."""

import pytest

from embedl_deploy.backend import get_backend, list_backends, set_backend
from embedl_deploy.errors import BackendNotFoundError, PluginError


@pytest.fixture
def rivals(install):
    install("acme", distribution="embedl-deploy-acme")
    install("acme", distribution="another", version="3")


def test_which_to_uninstall_and_how_to_choose(rivals):
    with pytest.raises(PluginError) as caught:
        get_backend("acme")
    assert str(caught.value) == (
        "Backend 'acme' is provided by 2 distributions: another 3, embedl-deploy-acme 1.2. A backend's name must be "
        "unique; uninstall all but one of them (pip uninstall another leaves embedl-deploy-acme), or say which one is "
        "meant: set_backend('acme', distribution='embedl-deploy-acme'), or "
        "EMBEDL_DEPLOY_DISTRIBUTION=acme=embedl-deploy-acme in the environment."
    )
    statuses = list_backends()
    assert statuses["acme"].error == str(caught.value)
    assert statuses["acme"].origin == "another 3, embedl-deploy-acme 1.2"
    assert statuses["tensorrt"].usable


@pytest.mark.parametrize("distribution", ["another", "Embedl_Deploy.Acme"])
def test_the_process_may_choose(rivals, distribution):
    set_backend("acme", distribution=distribution)
    origin = "another 3" if distribution == "another" else "embedl-deploy-acme 1.2"
    assert get_backend().origin == get_backend("acme").origin == origin
    status = list_backends()["acme"]
    assert (status.usable, status.origin) == (True, origin)
    (conflict,) = status.conflicts
    assert conflict.endswith(f"provides 'acme', too, and is not used: {origin} was chosen.")


def test_so_may_the_environment(rivals, monkeypatch):
    monkeypatch.setenv("EMBEDL_DEPLOY_DISTRIBUTION", "other=x, acme=another")
    assert get_backend("acme").origin == "another 3"
    set_backend("acme", distribution="embedl-deploy-acme")
    assert get_backend("acme").origin == "embedl-deploy-acme 1.2"


def test_a_choice_that_is_not_there_changes_nothing(rivals):
    set_backend("acme", distribution="another")
    with pytest.raises(
        BackendNotFoundError, match=r"No distribution 'acme-x' with a backend 'acme' is installed; there is"
    ):
        set_backend("acme", distribution="acme-x")
    assert get_backend("acme").origin == "another 3"
    with pytest.raises(BackendNotFoundError, match="No backend 'ghost' is installed"):
        set_backend("ghost", distribution="another")


def test_an_environment_that_cannot_be_read(rivals, monkeypatch):
    monkeypatch.setenv("EMBEDL_DEPLOY_DISTRIBUTION", "another")
    with pytest.raises(BackendNotFoundError, match="EMBEDL_DEPLOY_DISTRIBUTION holds 'another'; expected the name"):
        get_backend("acme")
    assert "holds 'another'" in list_backends()["acme"].error
