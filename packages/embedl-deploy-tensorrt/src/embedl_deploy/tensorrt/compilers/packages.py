"""Which of NVIDIA's packages are installed."""

import importlib.util


def is_installed(package: str) -> bool:
    """Whether a package is there to be imported.

    A folder of that name, such as a project's own ``tensorrt/`` with engines in it, is none: Python would import it as
    a namespace without anything inside.
    """
    spec = importlib.util.find_spec(package)
    return spec is not None and spec.origin is not None
