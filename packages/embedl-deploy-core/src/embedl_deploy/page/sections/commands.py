"""The commands that make this run again."""

from embedl_deploy.page.html import tag
from embedl_deploy.page.section import Section, Source


def commands(source: Source) -> Section | None:
    """The section, if commands were given."""
    if not source.run.commands:
        return None
    return Section("commands", "Commands", "Do it again", tag("pre", tag("code", "\n".join(source.run.commands))))
