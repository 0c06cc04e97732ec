"""Left out of an ordinary run, because each has a session of its own: ``./dev matrix`` and ``./dev scaffold``."""

collect_ignore = ["matrix", "scaffold"]
