"""The conformance kit: a pytest plugin with which the author of a backend tests it.

    [tool.pytest.ini_options]
    addopts = "-p embedl_deploy.testing --conformance acme"

Every pattern of the backend is tried on the examples that it declares, and the whole backend on small networks; what
fails is told as advice. Needs pytest, which the core does not.

PYTEST_DONT_REWRITE: no check is an ``assert``, and the plugin may be imported before pytest loads it.
"""

try:
    import pytest  # noqa: F401 - asked for here, so that its absence is said in one sentence
except ImportError as error:
    raise ImportError(
        "embedl_deploy.testing is a plugin of pytest, which is not installed here: pip install pytest"
    ) from error

from embedl_deploy.testing.failures import ConformanceFailure, DoesNotApply
from embedl_deploy.testing.pattern_table import PATTERN_CHECKS
from embedl_deploy.testing.plugin import (
    pytest_addoption,
    pytest_collection_modifyitems,
    pytest_configure,
    pytest_configure_node,
    pytest_sessionstart,
    pytest_terminal_summary,
)
from embedl_deploy.testing.table import Check
from embedl_deploy.testing.whole_table import BACKEND_CHECKS, NETWORK_CHECKS

__all__ = [
    "BACKEND_CHECKS",
    "NETWORK_CHECKS",
    "PATTERN_CHECKS",
    "Check",
    "ConformanceFailure",
    "DoesNotApply",
    "pytest_addoption",
    "pytest_collection_modifyitems",
    "pytest_configure",
    "pytest_configure_node",
    "pytest_sessionstart",
    "pytest_terminal_summary",
]
