"""One list of core's conversions."""

from embedl_deploy import conversions, recomposition
from embedl_deploy.conversions import every_conversion
from embedl_deploy.patterns import patterns_in


def test_no_conversion_is_forgotten() -> None:
    found = [*patterns_in(conversions), *patterns_in(recomposition)]
    defined = {type(pattern) for pattern in found if pattern.is_conversion}
    listed = [type(pattern) for pattern in every_conversion()]
    assert set(listed) == defined
    assert len(listed) == len(defined)


def test_each_backend_has_its_own() -> None:
    assert all(one is not other for one, other in zip(every_conversion(), every_conversion(), strict=True))
