"""Distinguishes Python code that asks for an object's class from C code that relies on the answer.

``isinstance(x, torch.Tensor)`` asks ``x.__class__``, and so do torch's C functions before they take ``x`` for a tensor
and read its memory. A proxy that tells them that it is one ends the process. Both questions arrive in the frame of the
Python code that made the call; the instruction that it is at tells them apart.
"""

import dis
from functools import lru_cache
from types import CodeType, FrameType
from typing import Any

#: How code reads an attribute that it names.
PLAIN_ACCESS = frozenset({"LOAD_ATTR", "LOAD_METHOD"})

#: The builtins that ask for somebody's class on behalf of Python code.
_QUESTIONS = (isinstance, issubclass, getattr)
_THEIR_NAMES = frozenset(question.__name__ for question in _QUESTIONS)
#: Instructions of a call that push nothing to be passed on.
_PREPARATIONS = frozenset({"PUSH_NULL", "PRECALL", "EXTENDED_ARG"})


def instruction(frame: FrameType) -> str:
    """The name of the instruction that a frame is at."""
    return dis.opname[frame.f_code.co_code[frame.f_lasti]]


def python_asks(frame: FrameType) -> bool | None:
    """Whether it is the Python code of ``frame`` that asks for the class of an object.

    Returns:
        ``None`` if it may be: which function puts the question cannot be seen.
    """
    name = instruction(frame)
    if name in PLAIN_ACCESS or name in ("MATCH_CLASS", "BINARY_SUBSCR"):
        return True
    if not name.startswith(("CALL", "PRECALL")):  # Python 3.11 calls isinstance from PRECALL, once it has learned to
        return False  # an operator, or an assignment to an attribute of a tensor
    load, called = _called(frame.f_code, frame.f_lasti)
    if load in ("LOAD_GLOBAL", "LOAD_NAME"):
        return _is_question(frame.f_globals.get(called, frame.f_builtins.get(called)))
    if load.startswith(("LOAD_FAST", "LOAD_DEREF")):
        return _is_question(frame.f_locals.get(called))
    if load in PLAIN_ACCESS:
        return called in _THEIR_NAMES
    code = frame.f_code
    return None if _THEIR_NAMES & {*code.co_names, *code.co_varnames, *code.co_freevars} else False


def _is_question(function: Any) -> bool | None:
    """Whether a function asks on behalf of Python code. Other builtins (``map``, ``setattr``) may ask either way."""
    if any(function is question for question in _QUESTIONS):
        return True
    return None if getattr(function, "__module__", None) == "builtins" else False


@lru_cache(maxsize=4096)
def _called(code: CodeType, offset: int) -> tuple[str, str]:
    """The instruction that pushed the function that is called at ``offset``, and what it names.

    Instructions of one expression are in postfix order, so going backwards over as many values as there are arguments
    leads to it. Where branches are in between (``f(a if c else b)``) the place that is found is none that loads.
    """
    before = []
    for at in dis.get_instructions(code):
        if at.offset == offset:
            break
        before.append(at)
    missing = 1 + ((at.arg or 0) & 1) if at.opname == "CALL_FUNCTION_EX" else (at.arg or 0)
    while before and before[-1].opname in _PREPARATIONS:
        before.pop()
    while before and missing > 0:
        step = before.pop()
        has_argument = step.opcode >= dis.HAVE_ARGUMENT
        missing -= dis.stack_effect(step.opcode, step.arg if has_argument else None, jump=False)
    while before and before[-1].opname in _PREPARATIONS:
        before.pop()
    return (before[-1].opname, str(before[-1].argval)) if before else ("", "")
