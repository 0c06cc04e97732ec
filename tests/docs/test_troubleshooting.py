"""Every message that the page on troubleshooting quotes is asked for behind the block that provokes it.

The page's blocks run as tests, like those of any page; ``said``, which the page defines, fails if a message was not
printed.
"""

import re

import pytest

from support.documents import DOCS

PAGE = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
SECTIONS = {part.partition("\n")[0]: part for part in re.split(r"^### ", PAGE, flags=re.MULTILINE)[1:]}


@pytest.mark.parametrize("message", SECTIONS)
def test_the_message_is_provoked_and_asked_for(message):
    shown, asked = SECTIONS[message].split("<!--- invisible-code-block: python\nsaid(")
    assert asked.startswith(f'"{message}"')
    assert re.search(r"^```python\n(?:.*\n)*? *print\(", shown, re.MULTILINE)


def test_there_are_those_that_users_meet_first():
    assert len(SECTIONS) >= 11
