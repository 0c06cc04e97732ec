"""A backend for tests, whose rules are given to it."""

from collections.abc import Callable

import pytest

from embedl_deploy.backend import Backend, BackendInfo, Rule
from embedl_deploy.checking import checker


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let ``check`` find a backend ``"acme"`` with these rules."""

    def run(*rules: Rule, domains: tuple[str, ...] = ()) -> None:
        info, origins = BackendInfo("Acme", domains=domains), {"MORE-1": "more 3"}
        acme = Backend("acme", info, "acme 1.2", (), (), (), check_rules=rules, rule_origins=origins)
        monkeypatch.setattr(checker, "get_backend", lambda name: acme)

    return run
