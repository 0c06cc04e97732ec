"""The conformance kit as tests of this repository, which run and are selected like all others."""

from collections.abc import Callable
from typing import Any

import pytest

from embedl_deploy.backend import get_backend
from embedl_deploy.testing.failures import DoesNotApply
from embedl_deploy.testing.item import advice
from embedl_deploy.testing.plugin import checks_of


def conformance_tests(backend: str) -> Callable[..., None]:
    """A test with a case for each check of a backend; assign it to a name that starts with ``test_``."""
    cases = [(subject, check) for subject, checks in checks_of(get_backend(backend)) for check in checks]

    @pytest.mark.parametrize(("subject", "check"), cases, ids=[f"{s.label}, {c.id}" for s, c in cases])
    def test_conforms(subject: Any, check: Any) -> None:
        try:
            check.run(subject)
        except DoesNotApply as reason:
            pytest.skip(str(reason))
        except Exception as error:  # noqa: BLE001 - whatever it is, the advice is what tells
            pytest.fail(advice(check, subject, error), pytrace=False)

    return test_conforms
