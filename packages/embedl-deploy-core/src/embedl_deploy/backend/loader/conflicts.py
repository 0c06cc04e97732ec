"""Messages about two plugins that contribute the same thing."""

from embedl_deploy.backend.loader.discovery import PluginSource

#: What is done about two things of which one can be used.
NOT_USED = "that of {first} is used, and that of {second} is not"


def in_each_others_way(label: str, first: PluginSource, second: PluginSource, outcome: str) -> str:
    """What to tell where two plugins bring the same.

    Args:
        label: What it is.
        first: The plugin that comes first.
        second: The other.
        outcome: What is done about it, with ``{first}`` and ``{second}`` for their names.
    """
    titles = {"first": title_of(first), "second": title_of(second)}
    return (
        f"{titles['first']} and {titles['second']} both bring {label}: {outcome.format(**titles)}. Uninstall one of "
        "them, or mark the one that should win with @hookimpl(tryfirst=True)."
    )


def title_of(source: PluginSource) -> str:
    """The name of a plugin with the distribution that ships it."""
    return f"{source.name} ({source.origin})"
