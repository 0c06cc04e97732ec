"""The conformance kit as tests of this repository, which run and are selected like all others."""

from collections.abc import Callable
from typing import Any

import pytest

from embedl_deploy.backend import get_backend
from embedl_deploy.testing.failures import DoesNotApply
from embedl_deploy.testing.item import advice
from embedl_deploy.testing.plugin import checks_of


def is_own(pattern: Any, backend: str) -> bool:
    """Whether a pattern is of the backend's own package."""
    return backend in type(pattern).__module__


def conformance_tests(backend: str, *, besides: str | None = None) -> Callable[..., None]:
    """A test with a case for each check of a backend; assign it to a name that starts with ``test_``.

    Args:
        backend: Its name.
        besides: A backend that is tested, too: patterns that both have, those of core, are checked with that one alone.
    """
    tested = set() if besides is None else {type(pattern).__name__ for pattern in get_backend(besides).patterns}
    own = {type(pattern).__name__ for pattern in get_backend(backend).patterns if is_own(pattern, backend)}
    subjects = checks_of(get_backend(backend))
    cases = [(s, check) for s, checks in subjects if s.label not in tested - own for check in checks]

    @pytest.mark.parametrize(("subject", "check"), cases, ids=[f"{s.label}, {c.id}" for s, c in cases])
    def test_conforms(subject: Any, check: Any) -> None:
        try:
            check.run(subject)
        except DoesNotApply as reason:
            pytest.skip(str(reason))
        except Exception as error:  # noqa: BLE001 - whatever it is, the advice is what tells
            pytest.fail(advice(check, subject, error), pytrace=False)

    return test_conforms
