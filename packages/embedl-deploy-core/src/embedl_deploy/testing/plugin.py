"""The hooks of pytest: the option, the marker, and the items.

Items are appended after everything else is collected, before ``-k`` and ``-m`` select. Their node ids read
``conformance/acme/ConvBNReLUPattern::keeps its numbers in training mode``: what stands before ``::`` is the same for
all checks of a pattern, so that ``--dist=loadfile`` of pytest-xdist spreads patterns over processes.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from embedl_deploy.backend import Backend, get_backend, list_backends
from embedl_deploy.errors import BackendError
from embedl_deploy.testing.item import TOLD, ConformanceItem, Subject
from embedl_deploy.testing.networks import NETWORKS
from embedl_deploy.testing.pattern_table import PATTERN_CHECKS
from embedl_deploy.testing.subjects import BackendSubject, NetworkSubject, PatternSubject, extension_alone
from embedl_deploy.testing.table import Check
from embedl_deploy.testing.whole_table import BACKEND_CHECKS, NETWORK_CHECKS

_OPTION = "--conformance"
#: What the process that was started tells pytest-xdist's processes: they do not see its command line.
_WORKER_INPUT = "embedl_deploy_conformance"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--conformance``."""
    parser.getgroup("embedl-deploy").addoption(
        _OPTION,
        action="append",
        default=[],
        metavar="BACKEND",
        help="test that an installed backend, or BACKEND.EXTENSION, keeps what embedl-deploy expects of it; may be "
        "given several times",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line("markers", "conformance: a check of a backend by embedl_deploy.testing")


def asked_for(config: pytest.Config) -> list[str]:
    """Names of the backends to test, each once.

    None, if the option stands in a configuration file only, and files, folders or node ids were named on the command
    line. The root folder, or exactly the ``testpaths``, are as no name.
    """
    told = getattr(config, "workerinput", None)
    if told is not None:
        return list(told.get(_WORKER_INPUT, ()))
    typed = any(arg == _OPTION or arg.startswith(f"{_OPTION}=") for arg in map(str, config.invocation_params.args))
    if config.args_source is pytest.Config.ArgsSource.ARGS and not typed and not _names_everything(config):
        return []
    return list(dict.fromkeys(config.getoption(_OPTION)))


def _names_everything(config: pytest.Config) -> bool:
    """Whether the command line names what pytest takes by itself: the root folder, or exactly the ``testpaths``."""
    root, here = config.rootpath.resolve(), config.invocation_params.dir
    named = {here.joinpath(argument).resolve() for argument in config.args}
    usual = {root.joinpath(path).resolve() for path in config.getini("testpaths")}
    return root in named or named == usual


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Hand the decision on to a process of pytest-xdist."""
    node.workerinput[_WORKER_INPUT] = asked_for(node.config)


def _load(name: str) -> Backend:
    """The backend of that name, or the one that an extension of that name extends.

    Raises:
        UsageError: It is not installed, or broken.
    """
    try:
        backend = get_backend(name.partition(".")[0])
    except BackendError as error:
        raise pytest.UsageError(f"{_OPTION} {name}: {error}") from error
    if "." in name:
        status = list_backends().get(name)
        if status is None:
            known = ", ".join(each for each in list_backends() if each.startswith(f"{backend.name}.")) or "none"
            raise pytest.UsageError(f"{_OPTION} {name}: {backend.name!r} has no such extension; it has {known}.")
        if status.error is not None:
            raise pytest.UsageError(f"{_OPTION} {name}: {status.error}")
    return backend


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Refuse a backend that is not installed, or broken, before anything runs."""
    for name in asked_for(session.config):
        _load(name)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Append the checks."""
    for name in asked_for(config):
        items.extend(_items(session, name, _load(name)))


def _items(session: pytest.Session, name: str, backend: Backend) -> Iterator[ConformanceItem]:
    """The checks of a backend or extension, in an order that is the same in every process."""
    taken: dict[str, int] = {}
    for subject, checks in checks_of(backend, name if "." in name else ""):
        group = f"conformance/{name}/{subject.label}"
        taken[group] = taken.get(group, 0) + 1  # that names are unique is a check of its own
        if taken[group] > 1:
            group += f" ({taken[group]})"
        for check in checks:
            yield ConformanceItem.from_parent(
                session, name=check.title, nodeid=f"{group}::{check.title}", check=check, subject=subject
            )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List what checks that hold have to tell, such as on how many variations a pattern was tried."""
    passed = terminalreporter.stats.get("passed", ())
    told = [value for report in passed for name, value in report.user_properties if name == TOLD]
    if told:
        terminalreporter.section("conformance")
        for line in told:
            terminalreporter.write_line(str(line))


def checks_of(backend: Backend, extension: str = "") -> Iterator[tuple[Subject, list[Check[Any]]]]:
    """What is looked at of a backend, and the checks that are asked of it.

    Args:
        backend: The backend, with its extensions.
        extension: Name of the one extension that is tested; by default the backend with everything.
    """
    if extension:
        alone = BackendSubject(extension_alone(backend, extension), extension, backend)
        yield alone, [check for check in BACKEND_CHECKS if not check.backends_only]
    else:
        yield BackendSubject(backend), list(BACKEND_CHECKS)
    for pattern in backend.patterns_from(extension) if extension else backend.patterns:
        checks = [check for check in PATTERN_CHECKS if not (check.fusions_only and pattern.is_conversion)]
        yield PatternSubject(backend, pattern, extension), list(checks)
    for name, make in NETWORKS.items():
        yield NetworkSubject(backend, name, make, extension), list(NETWORK_CHECKS)
