"""Broken plugins: each is named with its distribution and what is wrong with it, and hurts nobody else."""

import sys

import pytest

from embedl_deploy import EmbedlDeployError
from embedl_deploy.backend import get_backend, list_backends
from embedl_deploy.errors import BackendError, PluginError

GOOD_PATTERN = """
class Fused(FusedModule):
    def __init__(self, conv):
        super().__init__()
        self.conv = conv

    def forward(self, x):
        return self.conv(x)

class Good(Pattern):
    tree = (nn.Conv2d,)
    graft = Fused
"""


def error_of(name):
    """Load a broken backend; check what holds for all of them; give the message."""
    with pytest.raises(PluginError) as caught:
        get_backend(name)
    error = caught.value
    assert isinstance(error, BackendError)
    assert isinstance(error, EmbedlDeployError)
    assert (error.plugin, error.distribution) == (name, "acme 1.2")
    message = str(error)
    assert message.startswith(f"Backend '{name}' (from acme 1.2) ")
    assert "uninstall acme" in message, "says what to do"
    statuses = list_backends()
    assert statuses[name].error == message
    assert not statuses[name].usable
    assert statuses["tensorrt"].usable
    assert statuses["sensai"].usable
    assert get_backend("tensorrt").fusions, "the others keep working"
    return message


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import acme_needs_this", "ModuleNotFoundError: No module named 'acme_needs_this'"),
        ("raise ImportError('no driver')", "ImportError: no driver"),
        ("def broken(:\n    pass", "SyntaxError: "),
        ("raise SystemExit('goodbye')", "SystemExit: goodbye"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
    ],
)
def test_raising_on_import(install, code, reason):
    install("acme", code, raw=True)
    message = error_of("acme")
    assert "cannot be imported" in message
    assert reason in message


def test_the_cause_is_kept(install):
    install("acme", "raise ImportError('no driver')", raw=True)
    with pytest.raises(PluginError) as caught:
        get_backend("acme")
    assert isinstance(caught.value.__cause__, ImportError)


def test_an_interrupt_is_not_swallowed(install):
    install("acme", "raise KeyboardInterrupt", raw=True)
    with pytest.raises(KeyboardInterrupt):
        get_backend("acme")


@pytest.mark.parametrize(
    ("code", "reasons"),
    [
        (
            "@hookimpl\ndef embedl_deploy_fusions(bakend):\n    return []",
            ["has a wrong hook", "embedl_deploy_fusions", "bakend"],
        ),
        (
            "@hookimpl\ndef embedl_deploy_fusion():\n    return []",
            ["embedl_deploy_fusion, which is not a hook", "the hooks are", "embedl_deploy_fusions"],
        ),
        (
            "def embedl_deploy_fusions():\n    return []",
            ["embedl_deploy_fusions without marking it", "put @hookimpl above it"],
        ),
        (
            "@hookimpl\ndef embedl_deploy_fusions():\n    raise OSError('no table')",
            ["fails in embedl_deploy_fusions", "OSError: no table"],
        ),
        (
            "@hookimpl\ndef embedl_deploy_fusions():\n    return Pattern()",
            ["from embedl_deploy_fusions", "expected a list or None"],
        ),
        (
            "@hookimpl\ndef embedl_deploy_fusions():\n    return (p for p in [])",
            ["<generator object", "from embedl_deploy_fusions", "expected a list or None"],
        ),
        (
            "@hookimpl\ndef embedl_deploy_fusions():\n    return 'patterns'",
            ["'patterns' from embedl_deploy_fusions", "expected a list or None"],
        ),
        (
            "@hookimpl\ndef embedl_deploy_fusions():\n    return [7]",
            ["a wrong pattern from embedl_deploy_fusions", "7 is not an embedl_deploy.patterns.Pattern"],
        ),
        (
            GOOD_PATTERN + "@hookimpl\ndef embedl_deploy_fusions():\n    return [Good]",
            ["a wrong pattern from embedl_deploy_fusions", "Good is a class; pass an instance: Good()"],
        ),
        (
            GOOD_PATTERN + "class Bad(Good):\n    is_conversion = True\n"
            "@hookimpl\ndef embedl_deploy_fusions():\n    return [Bad()]",
            ["returns Bad from embedl_deploy_fusions", "is_conversion is True"],
        ),
        (
            GOOD_PATTERN + "@hookimpl\ndef embedl_deploy_conversions():\n    return [Good()]",
            ["returns Good from embedl_deploy_conversions", "is_conversion is False"],
        ),
        (
            GOOD_PATTERN + "class Bad(Good):\n    tree = (nn.Conv2d, nn.ReLU)\n"
            "@hookimpl\ndef embedl_deploy_fusions():\n    return [Bad()]",
            ["graft Fused(conv) does not fit the tree", "2 argument(s)", "Change the constructor or define replace()"],
        ),
        (
            GOOD_PATTERN + "class Bad(Good):\n    graft = None\n"
            "@hookimpl\ndef embedl_deploy_fusions():\n    return [Bad()]",
            ["'Bad' declares neither graft nor replace()"],
        ),
        (
            GOOD_PATTERN + "class Bad(Good):\n    tree = None\n"
            "@hookimpl\ndef embedl_deploy_fusions():\n    return [Bad()]",
            ["'Bad' declares no tree"],
        ),
        (
            "@hookimpl\ndef embedl_deploy_leaf_modules():\n    return [nn.ReLU()]",
            ["ReLU() from embedl_deploy_leaf_modules", "expected module classes"],
        ),
        (
            "@hookimpl\ndef embedl_deploy_quantization_policies():\n    return [print]",
            ["from embedl_deploy_quantization_policies", "expected a mapping from names to functions, or None"],
        ),
        (
            "@hookimpl\ndef embedl_deploy_quantization_policies():\n    return {7: print}",
            ["{7: ", "from embedl_deploy_quantization_policies", "expected a mapping from names to functions"],
        ),
        (
            "@hookimpl\ndef embedl_deploy_quantization_policies():\n    return {'fast': 'all'}",
            ["'all' as policy 'fast' from embedl_deploy_quantization_policies", "expected a function"],
        ),
        (
            "@hookimpl\ndef embedl_deploy_quantization_policies():\n    raise OSError('no table')",
            ["fails in embedl_deploy_quantization_policies", "OSError: no table"],
        ),
    ],
    ids=[
        *("wrong argument", "unknown hook", "unmarked hook", "raises", "no list", "generator", "string", "no pattern"),
        *("pattern class", "conversion as fusion", "fusion as conversion", "graft does not fit", "no graft", "no tree"),
        *("leaf instance", "policies in a list", "policy without name", "policy without function", "policies raise"),
    ],
)
def test_wrong_hooks(install, describe, code, reasons):
    install("acme", describe + code)
    message = error_of("acme")
    for reason in reasons:
        assert reason in message


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("", "does not describe itself: embedl_deploy_describe must return a BackendInfo"),
        ("@hookimpl\ndef embedl_deploy_describe():\n    return 'Acme'", "must return a BackendInfo"),
        ("@hookimpl\ndef embedl_deploy_describe():\n    return 1 / 0", "fails in embedl_deploy_describe"),
    ],
)
def test_missing_or_wrong_description(install, code, reason):
    install("acme", code)
    assert reason in error_of("acme")


def test_an_entry_point_that_leads_nowhere(install, tmp_path):
    install("acme")
    info = tmp_path / "acme" / "acme-1.2.dist-info" / "entry_points.txt"
    info.write_text("[embedl_deploy.backends]\nacme = acme_plugin:missing\n", encoding="utf-8")
    assert "cannot be imported: AttributeError" in error_of("acme")


@pytest.mark.parametrize("marker", ["hookimpl", "hookimpl(optionalhook=False)"])
def test_an_unknown_hook_may_be_marked_as_one_of_other_versions(install, describe, marker):
    code = "\n@{}\ndef embedl_deploy_tomorrow(backend, model):\n    return []\n"
    install("acme", describe + code.format("hookimpl(optionalhook=True)"))
    assert get_backend("acme").info.title == "Acme Edge NPU"
    install("second", describe + code.format(marker), distribution="second")
    with pytest.raises(
        PluginError, match=r"embedl_deploy_tomorrow, which is not a hook.*@hookimpl\(optionalhook=True\)"
    ):
        get_backend("second")


def test_hooks_are_called_once_and_what_they_give_is_kept(install, describe):
    counting = "".join(
        f"\n@hookimpl\ndef embedl_deploy_{hook}():\n    CALLS.append('{hook}')\n    return {{}} or []\n"
        for hook in ("conversions", "leaf_modules", "check_rules", "compilers", "devices")
    )
    once = describe.replace("    return", "    CALLS.append('describe')\n    return")
    fusions = "\n@hookimpl\ndef embedl_deploy_fusions():\n    CALLS.append('fusions')\n    return [Good()]\n"
    install("acme", "CALLS = []\n" + once + counting + GOOD_PATTERN + fusions)
    install("acme.more", GOOD_PATTERN.replace("Good", "More"), distribution="more")
    assert list_backends()["acme"].usable
    (pattern,) = get_backend("acme").fusions
    assert get_backend("acme").fusions == (pattern,)
    assert pattern.origin == "acme 1.2"
    calls = sys.modules["acme_plugin"].CALLS
    assert sorted(calls) == sorted({*calls})
    assert len(calls) == 7


def test_a_hook_that_gives_a_list_cannot_be_wrapped(install, describe):
    install("acme", describe + "\n@hookimpl(wrapper=True)\ndef embedl_deploy_fusions():\n    return (yield)\n")
    assert "wraps embedl_deploy_fusions, which is called for each plugin alone" in error_of("acme")


def test_a_plugin_may_be_any_object(install, describe, tmp_path):
    install(
        "acme",
        """
        class Acme:
            @hookimpl
            def embedl_deploy_describe(self):
                return BackendInfo("Acme in a class")
        plugin = Acme()
        """,
    )
    info = tmp_path / "acme" / "acme-1.2.dist-info" / "entry_points.txt"
    info.write_text("[embedl_deploy.backends]\nacme = acme_plugin:plugin\n", encoding="utf-8")
    assert get_backend("acme").info.title == "Acme in a class"


def test_a_good_plugin_is_loaded_whole(install, describe):
    install(
        "acme",
        describe
        + GOOD_PATTERN
        + "@hookimpl\ndef embedl_deploy_fusions(backend):\n    assert backend == 'acme'\n    return (Good(),)\n"
        + "@hookimpl\ndef embedl_deploy_conversions():\n    return None\n"
        + "@hookimpl\ndef embedl_deploy_leaf_modules():\n    return [nn.Sequential]\n"
        + "@hookimpl\ndef embedl_deploy_quantization_policies(backend):\n"
        + "    return {'none': lambda point: backend, 'all': lambda point: None}\n",
    )
    backend = get_backend("acme")
    assert (backend.name, backend.origin, backend.info.title) == ("acme", "acme 1.2", "Acme Edge NPU")
    assert [pattern.name for pattern in backend.patterns] == ["Good"]
    assert [cls.__name__ for cls in backend.leaf_modules] == ["Sequential"]
    assert list(backend.policies) == ["none", "all"]
    assert backend.policies["none"](None) == "acme"
    assert (backend.conversions, backend.extensions) == ((), ())
    assert list_backends()["acme"].usable


def test_a_backend_without_policies(install, describe):
    install("acme", describe)
    assert get_backend("acme").policies == {}
