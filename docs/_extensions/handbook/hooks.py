"""The reference of hooks, from their specifications."""

from embedl_deploy.backend.contract import hookspecs

PREFIX = f"{hookspecs.PROJECT}_"


def hook_names() -> list[str]:
    """Every hook, in the order of the file that specifies them."""
    return [name for name, value in vars(hookspecs).items() if name.startswith(PREFIX) and callable(value)]


def hook_reference() -> str:
    """A section for each hook: signature, when it is called, with what, and what it gives."""
    return "\n\n".join(
        f"## {name}\n\n```{{eval-rst}}\n.. autofunction:: {hookspecs.__name__}.{name}\n```" for name in hook_names()
    )
