"""Each thing that a backend brings, with the distribution that ships it."""

from embedl_deploy.backend import Contribution, get_backend

OWN = """
class OwnPattern(Pattern):
    tree = (nn.Conv2d,)
    graft = FusedModule

@hookimpl
def embedl_deploy_describe():
    return BackendInfo("Acme Edge NPU")

@hookimpl
def embedl_deploy_fusions():
    return [OwnPattern()]

@hookimpl
def embedl_deploy_quantization_policies():
    return {"all": lambda point: None, "most": lambda point: None}
"""

MORE = """
class MorePattern(Pattern):
    tree = (nn.Linear,)
    graft = FusedModule

@hookimpl{order}
def embedl_deploy_fusions(backend):
    return [MorePattern()]

@hookimpl
def embedl_deploy_quantization_policies():
    return {{"all": lambda point: None}}
"""


def brought(kind):
    return [(c.name, c.plugin, c.origin) for c in get_backend("acme").contributions if c.kind == kind]


def test_a_backend_alone(install):
    install("acme", OWN)
    assert get_backend("acme").contributions == (
        Contribution("fusion", "OwnPattern", "acme", "acme 1.2"),
        Contribution("policy", "all", "acme", "acme 1.2"),
        Contribution("policy", "most", "acme", "acme 1.2"),
    )


def test_an_extension_comes_first_and_what_it_replaces_is_listed_too(install):
    install("acme", OWN)
    install("acme.more", MORE.format(order=""), distribution="acme-more", version="3.1")
    assert brought("fusion") == [
        ("MorePattern", "acme.more", "acme-more 3.1"),
        ("OwnPattern", "acme", "acme 1.2"),
    ]
    assert brought("policy") == [
        ("all", "acme.more", "acme-more 3.1"),
        ("all", "acme", "acme 1.2"),
        ("most", "acme", "acme 1.2"),
    ]


def test_the_order_is_that_in_which_patterns_are_tried(install):
    install("acme", OWN)
    install("acme.more", MORE.format(order="(trylast=True)"), distribution="acme-more", version="3.1")
    assert [name for name, _, _ in brought("fusion")] == [pattern.name for pattern in get_backend("acme").fusions]
    assert brought("fusion")[-1] == ("MorePattern", "acme.more", "acme-more 3.1")
