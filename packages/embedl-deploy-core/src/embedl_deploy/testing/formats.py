"""The number formats of a backend's hardware, as the project of the backend names them.

[tool.pytest.ini_options]
conformance_quantization = ["acme: embedl_deploy_acme.quantization:ACME_INT8"]
"""

import importlib

import pytest

from embedl_deploy.quantize import QuantConfig

SETTING = "conformance_quantization"


def formats_of(config: pytest.Config, backend: str) -> QuantConfig | None:
    """What the configuration names for a backend; ``None`` if it names nothing.

    Raises:
        pytest.UsageError: A line cannot be read, or names no :class:`QuantConfig` and no function that gives one.
    """
    for line in config.getini(SETTING):
        name, colon, target = map(str.strip, line.partition(":"))
        module, second, attribute = target.partition(":")
        if not (colon and second):
            raise pytest.UsageError(f"{SETTING}: {line!r}; expected 'backend: package.module:NAME'")
        if name == backend:
            return _load(line, module, attribute)
    return None


def _load(line: str, module: str, attribute: str) -> QuantConfig:
    try:
        value = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise pytest.UsageError(f"{SETTING}: {line!r} cannot be loaded: {error}") from error
    given = value() if callable(value) else value
    if not isinstance(given, QuantConfig):
        raise pytest.UsageError(f"{SETTING}: {line!r} gives {given!r}; expected a QuantConfig")
    return given
