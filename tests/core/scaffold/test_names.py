"""Which names a new backend can have, and what is made of them."""

import pytest

from embedl_deploy.errors import InputError
from embedl_deploy.scaffold.names import BackendNames, names_of


def test_everything_is_made_from_the_name():
    names = names_of("acme-npu2_x")
    assert names.placeholders() == {
        "name": "acme-npu2_x",
        "title": "Acme Npu2 X",
        "distribution": "embedl-deploy-acme-npu2-x",
        "package": "embedl_deploy_acme_npu2_x",
        "prefix": "AcmeNpu2X",
        "constant": "ACME_NPU2_X",
        "rule": "ACME-NPU2-X",
        "core_versions": names.core_versions,
    }


@pytest.mark.parametrize(
    ("installed", "bounds"),
    [
        ("0.1.0", ">=0.1.0,<0.2"),
        ("0.9.3.dev1+local", ">=0.9.3.dev1,<0.10"),
        ("1.4.2", ">=1.4.2,<2"),
    ],
)
def test_goes_with_the_core_up_to_the_next_that_may_break_it(installed, bounds, monkeypatch):
    monkeypatch.setattr("embedl_deploy.scaffold.names.metadata.version", lambda name: installed)
    assert BackendNames("acme", "Acme").core_versions == bounds


@pytest.mark.parametrize(
    "name", ["", "Acme", "2fast", "acme.extension", "acme--npu", "acme-", "-acme", "acme npu", "açme", "a" * 21, None]
)
def test_a_name_that_is_none(name):
    with pytest.raises(InputError, match="is not a valid backend name; expected at most 20 lower-case letters"):
        names_of(name)


@pytest.mark.parametrize("name", ["class", "lambda", "is"])
def test_a_keyword(name):
    with pytest.raises(InputError, match=f"'{name}' is a keyword of Python; choose another name, such as '{name}-npu'"):
        names_of(name)


def test_a_name_that_an_installed_backend_has():
    with pytest.raises(
        InputError, match=r"'tensorrt' is installed already, as 'tensorrt' from embedl-deploy-tensorrt \d"
    ):
        names_of("tensorrt")


@pytest.mark.parametrize("name", ["core", "sensai-stub", "sensai_stub"])
def test_a_name_whose_distribution_is_installed(name):
    with pytest.raises(InputError, match=r"would be the distribution embedl-deploy-.*, which is installed already"):
        names_of(name)


@pytest.mark.parametrize("title", ["", " ", 'The "best"', "back\\slash", "two\nlines", "x" * 41])
def test_a_title_that_cannot_be_written(title):
    with pytest.raises(InputError, match="cannot be written into the backend's files"):
        names_of("acme", title)
