"""Checks that sizes from a file or an option fit into memory before anything is allocated."""

import os

from embedl_deploy.errors import InputError


def refuse_too_large(wanted: int, what: str, advice: str) -> None:
    """Compare a number of bytes with the memory of this machine.

    Args:
        wanted: Bytes.
        what: Whose, as the beginning of a sentence.
        advice: What to do instead.

    Raises:
        InputError: They are more than there is.
    """
    there = _memory()
    if wanted > there:
        raise InputError(
            f"{what} takes {wanted / 1e9:.3g} GB, but this machine has {there / 1e9:.3g} GB of memory. {advice}"
            if wanted < 1e18
            else f"{what} takes more memory than any machine has. {advice}"
        )


def _memory() -> int:
    """Bytes of memory; where the system does not say, what can be addressed."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 2**47
