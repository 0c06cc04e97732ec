"""Registers the containers of well-known libraries once the library is imported.

A model or an input of a library's class can only come from a process that has imported the library; so nothing is
imported here.
"""

import sys
from collections.abc import Callable
from typing import Any

from embedl_deploy.containers.caches import register_caches

#: Modules that define structures, and what makes them known: called again and again, for classes may be derived later.
_LIBRARIES: dict[str, Callable[[Any], None]] = {"transformers.cache_utils": register_caches}


def know_containers() -> None:
    """Tell torch of the structures of the libraries that are imported; of what it knows already, nothing."""
    for name, register in _LIBRARIES.items():
        module = sys.modules.get(name)
        if module is not None:
            register(module)
