"""What docstrings and annotations refer to by a short or an inner name, found under its public one."""

import importlib
from functools import cache
from typing import TYPE_CHECKING

from handbook.api import ROOMS, homes, public_names

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment


@cache
def _public() -> dict[str, str]:
    """Full public names by their last parts; the first room wins."""
    found: dict[str, str] = {}
    for room in ROOMS:
        module = importlib.import_module(room)
        for name in public_names(room):
            found.setdefault(name, homes().get(id(getattr(module, name)), f"{room}.{name}"))
    return found


def resolve(
    app: "Sphinx", env: "BuildEnvironment", node: "pending_xref", content: "nodes.TextElement"
) -> "nodes.reference | None":
    """Lead ``QuantPoint`` and ``embedl_deploy.numerics.points.QuantPoint`` to the one public description."""
    if node.get("refdomain") != "py":
        return None
    *before, last = node["reftarget"].split(".")
    target = _public().get(last)
    if target is None and before:
        owner = _public().get(before[-1])
        target = f"{owner}.{last}" if owner else None
    if target is None:
        return None
    domain = env.domains["py"]
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", target, node, content)
