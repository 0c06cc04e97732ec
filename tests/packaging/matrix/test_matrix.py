"""Which combinations of installed plugins work, and what is said of those that do not."""

import json

import pytest

from support.plugin_projects import BROKEN_PLUGINS

CORE = "embedl-deploy-core"
#: By distribution: the entry point, and the class that it puts in the place of a convolution.
BACKENDS = {
    "embedl-deploy-tensorrt": ("tensorrt", "FusedConvBNReLU"),
    "embedl-deploy-onnxruntime": ("onnxruntime", "OrtConv"),
    "embedl-deploy-sensai-stub": ("sensai", "SensaiConvBNReLU"),
    "embedl-deploy-acme": ("acme", "AcmeConv"),
}
EXTENSION = "embedl-deploy-tensorrt-inhouse"
EVERYTHING = (CORE, *BACKENDS, EXTENSION, *(plugin.distribution for plugin in BROKEN_PLUGINS))

#: Transforms a network for the backend that is named, or for the only one, and prints what took the convolution.
TRANSFORM = """
import torch
from torch import nn
from embedl_deploy import transform
model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).eval()
x = torch.randn(2, 3, 8, 8)
result = transform(model, x, backend={backend!r})
assert result.verify(x).max_rel < 1e-5
print(type(result.model.get_submodule("0")).__name__)
"""
STATUSES = """
import json
from embedl_deploy.backend import list_backends
print(json.dumps({name: [status.origin, status.error] for name, status in list_backends().items()}))
"""
#: Loads one backend, and prints which of the others' modules that has imported.
LOAD_ONE = """
import json, sys
import embedl_deploy
from embedl_deploy.backend import discover_backends, get_backend
discovered = discover_backends()
words = ("tensorrt", "onnxruntime", "sensai", "acme", "plugin_")
imported = lambda: sorted(
    name for name in sys.modules
    if name.split(".")[0].startswith(("embedl_deploy", "plugin_")) and any(word in name for word in words)
)
before = imported()
get_backend("acme")
print(json.dumps([sorted(discovered), before, imported()]))
"""
ERRORS = """
import json
from embedl_deploy.backend import get_backend
from embedl_deploy.errors import PluginError
errors = {{}}
for name in {names!r}:
    try:
        get_backend(name)
    except PluginError as error:
        errors[name] = [str(error), error.plugin, error.distribution]
print(json.dumps(errors))
"""


def statuses_of(environment):
    return json.loads(environment.run(STATUSES))


class TestCoreAlone:
    def test_there_is_no_backend(self, core_alone):
        assert statuses_of(core_alone) == {}
        done = core_alone.command("backends")
        assert (done.returncode, done.stdout) == (0, "No backend is installed: pip install embedl-deploy-<target>.\n")

    def test_what_needs_one_says_so(self, core_alone):
        done = core_alone.command("plan", "torch.nn:ReLU")
        assert done.returncode == 2
        assert "No backend is installed at all" in done.stderr

    def test_patterns_need_none(self, core_alone):
        code = (
            "from torch import nn; from embedl_deploy import transform;"
            "from embedl_deploy.conversions import RemoveIdentityPattern;"
            "result = transform(nn.Sequential(nn.Identity()), patterns=[RemoveIdentityPattern()]);"
            "print(result.report['applied_count'])"
        )
        assert core_alone.run(code) == "1\n"


@pytest.mark.parametrize(("distribution", "backend", "module"), [(d, *rest) for d, rest in BACKENDS.items()])
def test_one_backend_is_the_default(new_environment, distribution, backend, module):
    environment = new_environment(CORE, distribution)
    assert list(statuses_of(environment)) == [backend]
    assert environment.run(TRANSFORM.format(backend=None)) == f"{module}\n"


@pytest.fixture(scope="module")
def everything(new_environment):
    return new_environment(*EVERYTHING)


@pytest.fixture(scope="module")
def with_everything(everything):
    """What is said of each plugin when nothing is missing."""
    return statuses_of(everything)


class TestEverything:
    @pytest.mark.parametrize(("backend", "module"), BACKENDS.values())
    def test_each_that_works_transforms(self, everything, backend, module):
        assert everything.run(TRANSFORM.format(backend=backend)) == f"{module}\n"

    def test_the_extension_takes_part(self, everything):
        done = everything.command("backends", "-v", "-b", "tensorrt", "--json")
        backend = json.loads(done.stdout)["tensorrt"]
        assert backend["extensions"] == [f"tensorrt.inhouse ({EXTENSION} 1.0)"]
        theirs = [row for row in backend["contributions"] if row["plugin"] == "tensorrt.inhouse"]
        assert [(row["kind"], row["name"]) for row in theirs] == [("fusion", "LinearTanhPattern"), ("policy", "mixed")]

    def test_none_is_imported_before_it_is_asked_for(self, everything):
        discovered, before, after = json.loads(everything.run(LOAD_ONE))
        assert set(discovered) == {
            "tensorrt",
            "onnxruntime",
            "sensai",
            "acme",
            *(plugin.name for plugin in BROKEN_PLUGINS),
        }
        assert before == []
        assert after
        assert {name.split(".")[0] for name in after} == {"embedl_deploy_acme"}

    def test_broken_ones_are_named_in_python(self, everything):
        statuses = statuses_of(everything)
        errors = json.loads(everything.run(ERRORS.format(names=[plugin.name for plugin in BROKEN_PLUGINS])))
        for plugin in BROKEN_PLUGINS:
            message, *names = errors[plugin.name]
            assert names == [plugin.name, plugin.origin]
            assert plugin.reason in message
            assert f"Repair or uninstall {plugin.distribution};" in message
            assert statuses.pop(plugin.name) == [plugin.origin, message]
        assert {name for name, (_, error) in statuses.items() if error is None} == {
            *("tensorrt", "onnxruntime", "sensai", "acme", "tensorrt.inhouse")
        }

    def test_broken_ones_are_named_on_the_command_line(self, everything):
        done = everything.command("backends")
        assert done.returncode == 0, "the list is complete"
        for plugin in BROKEN_PLUGINS:
            assert f"{plugin.name} ({plugin.origin}): broken\n  Backend {plugin.name!r}" in done.stdout
            refused = everything.command("plan", "torch.nn:ReLU", "-b", plugin.name)
            assert refused.returncode == 3
            assert refused.stdout == ""
            assert plugin.reason in refused.stderr
        assert everything.command("plan", "torch.nn:ReLU", "-b", "acme").returncode == 0
        assert everything.command("plan", "torch.nn:ReLU", "-b", "absent").returncode == 2

    @pytest.mark.parametrize("distribution", EVERYTHING[1:])
    def test_uninstalling_one_leaves_the_rest_whole(self, everything, with_everything, distribution):
        gone = {name for name, (origin, _) in with_everything.items() if origin.rpartition(" ")[0] == distribution}
        assert gone
        backend, module = next(entry for name, entry in BACKENDS.items() if name != distribution)
        everything.uninstall(distribution)
        try:
            left = statuses_of(everything)
            assert everything.run(TRANSFORM.format(backend=backend)) == f"{module}\n"
        finally:
            everything.install(distribution)
        assert left.keys() == with_everything.keys() - gone
        if "tensorrt" in gone:  # what the extension extends is gone with it
            assert "extends the backend 'tensorrt', which is not installed" in left.pop("tensorrt.inhouse")[1]
        assert left == {name: with_everything[name] for name in left}

    def test_installing_them_again_brings_all_back(self, everything, with_everything):
        assert statuses_of(everything) == with_everything
