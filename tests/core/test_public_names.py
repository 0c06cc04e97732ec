"""What users import from ``embedl_deploy``, which imports it when it is asked for."""

import subprocess
import sys
from importlib.metadata import version

import pytest

import embedl_deploy


def test_every_public_name_is_there():
    assert {*embedl_deploy._PLACES, "__version__"} == set(embedl_deploy.__all__) <= set(dir(embedl_deploy))
    for name in embedl_deploy.__all__:
        assert getattr(embedl_deploy, name) is not None
    assert embedl_deploy.__version__ == version("embedl-deploy-core")


def test_rooms_are_attributes():
    assert embedl_deploy.errors.InputError.__module__ == "embedl_deploy.errors"


@pytest.mark.parametrize("name", ["nothing_of_the_kind", "_private", "__wrapped__"])
def test_other_names_are_not_there(name):
    with pytest.raises(AttributeError, match=f"module 'embedl_deploy' has no attribute '{name}'"):
        getattr(embedl_deploy, name)


def test_torch_is_not_imported_before_it_is_needed():
    code = "import sys, embedl_deploy, embedl_deploy.errors, embedl_deploy.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
