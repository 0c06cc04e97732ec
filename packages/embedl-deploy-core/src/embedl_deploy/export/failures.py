"""Explains failures of torch's exporter: the module, the line of the user's code, the operator, the fix."""

import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn

from embedl_deploy.artifact import module_of
from embedl_deploy.graph.metadata import module_path_of
from embedl_deploy.graph.placement import describe_failed_module

if TYPE_CHECKING:
    import onnx_ir as ir

_TRACE = "pkg.torch.onnx.stack_trace"
_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in [^\n]*(?:\n\s+(?P<code>[^\n]+))?')
#: Where no code of users lives: torch, this package with what lies in it, and generated code.
_NOT_THE_USERS = (*(f"{Path(path)}/" for path in (*torch.__path__, *sys.modules["embedl_deploy"].__path__)), "<")
_REMEDY = "Write it with other operators, or export the model without that part."
#: What torch calls types of 16 bits in its errors.
_SHORT_TYPES = re.compile(r"\b(Half|BFloat16)\b")
_IN_FLOAT32 = (
    "Write the file in float32, or compute that part of the model in float32: call `.float()` on its inputs and "
    "`.to(x.dtype)` on its outputs."
)
#: What torch says where a layer gives a tensor another storage (``set_``, ``.data``), as ``nn.CrossMapLRN2d`` does.
_STORAGE = "set the storage of a tensor"
_WITHOUT_STORAGE = (
    "Use nn.LocalResponseNorm, which can be exported and computes nearly the same as nn.CrossMapLRN2d. Otherwise: "
    f"{_REMEDY}"
)
#: Of an exception's text, as much as a terminal shows at once.
_LONGEST = 400
#: Further operators without a translation that are listed.
_LISTED = 4


def explain(model: nn.Module, error: Exception) -> str:
    """What went wrong in an export, where, and what to do, as the end of a sentence.

    Args:
        model: What was exported.
        error: What the exporter raised.
    """
    chain = list(_chain(error))
    node, registry = next((found for link in chain if (found := _translated_node(link)) is not None), (None, None))
    cause = chain[-1]
    if node is not None:
        return f"torch.onnx cannot translate {_untranslated(node, cause, registry)}. {_REMEDY}"
    module, line = _raised_in(model, cause)
    said = f"{type(cause).__name__}: {_text(cause)}"
    operator, short = _operator_in(cause), _SHORT_TYPES.search(str(cause))
    if operator and short:
        dtype = str(getattr(torch, short[0].lower())).removeprefix("torch.")
        said = f"torch does not compute {operator!r} in {dtype} ({said})"
        return f"{said}{in_words(module, line)}. {_IN_FLOAT32}"
    if _STORAGE in str(cause):
        said = f"it replaces the storage of a tensor, which cannot be exported ({said})"
        return f"{said}{in_words(module, line)}. {_WITHOUT_STORAGE}"
    placed = describe_failed_module(error)
    if placed:
        return f"{said} (in {placed})"
    if type(cause).__name__ in ("GuardOnDataDependentSymNode", "UserError"):
        said = f"it branches on values of tensors, which are not known during export: {_text(cause, lines=1)}"
        return f"{said}{in_words(module, line)}. Use torch.where for a choice by values, or leave that part out."
    return f"{said}{in_words(module, line)}"


def may_be_of_sizes(error: Exception) -> bool:
    """Whether fixed sizes may help an export: not where torch or torch.onnx lacks an operator, whatever the sizes."""
    cause = list(_chain(error))[-1]
    if type(cause).__name__ in ("DispatchError", "GuardOnDataDependentSymNode") or _STORAGE in str(cause):
        return False
    return not (_operator_in(cause) and _SHORT_TYPES.search(str(cause)))


def users_lines(model: "ir.Model") -> dict[str, str]:
    """The line of the user's code that each node of a model came from, where that is known; from the metadata."""
    lines = {node.name: _users_line(node.metadata_props.get(_TRACE, "")) for node in model.graph.all_nodes()}
    return {name: line for name, line in lines.items() if name and line}


def explain_nodes(model: "ir.Model", lines: Mapping[str, str], text: str) -> str:
    """For an error that quotes a node of a file by name: its module and line, in words; empty if it quotes none."""
    for node in model.graph.all_nodes():
        if node.name and re.search(rf"(?<![\w.]){re.escape(node.name)}(?![\w.])", text):
            place = in_words(module_of(node) or "", lines.get(node.name, ""))
            return f" The node is what torch's exporter wrote for {node.op_type!r}{place}. {_REMEDY}"
    return ""


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception and its causes: torch wraps what went wrong in advice on how to debug torch."""
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__


def _translated_node(error: BaseException) -> tuple[fx.Node, Any] | None:
    """The node that torch's exporter was translating when it raised, and its table of translations."""
    if type(error).__name__ != "ConversionError":
        return None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        node = frame.f_locals.get("node")
        if isinstance(node, fx.Node):
            return node, frame.f_locals.get("registry")
    return None


def _untranslated(node: fx.Node, cause: BaseException, registry: Any) -> str:
    """The operator that torch.onnx does not translate and where it is, and after it others that it has no form for."""
    why = "" if type(cause).__name__ == "DispatchError" else f" for this use of it ({_text(cause)})"
    first = f"{_operator(node)}{why}{in_words(module_path_of(node), users_line(node))}"
    known = getattr(registry, "is_registered", None)  # torch's own, and not public
    others = dict.fromkeys(
        f"{_operator(other)}{in_words(module_path_of(other), users_line(other))}"
        for other in node.graph.nodes
        if known is not None and isinstance(other.target, torch._ops.OpOverload) and not known(other.target)
    )
    others.pop(first, None)
    told = [f"; nor {other}" for other in list(others)[:_LISTED]]
    return f"{first}{''.join(told)}{f'; nor {len(others) - _LISTED} more' if len(others) > _LISTED else ''}"


def _operator(node: fx.Node) -> str:
    """An operator, after the function of torch that it was made of, where that has another name."""
    operator = repr(str(node.target))
    called = str(node.meta.get("torch_fn", ("", ""))[1]).rpartition(".")[2]
    namespace, _, function = called.partition("_")
    if called == getattr(node.target, "_opname", called):
        return operator
    if namespace in ("fft", "linalg", "special") and hasattr(getattr(torch, namespace), function):
        return f"torch.{namespace}.{function} ({operator})"
    return f"torch.{called} ({operator})" if hasattr(torch, called) else operator


def _raised_in(model: nn.Module, error: BaseException) -> tuple[str, str]:
    """The innermost module of the model, and the innermost line of the user's code, that an exception came through."""
    paths = {id(module): path for path, module in model.named_modules()}
    module = line = ""
    for frame, number in traceback.walk_tb(error.__traceback__):
        owner = frame.f_locals.get("self")
        if id(owner) in paths and isinstance(owner, nn.Module):
            module = paths[id(owner)]
        node = frame.f_locals.get("n")
        if isinstance(owner, fx.Interpreter) and isinstance(node, fx.Node):  # of a captured graph
            module, line = module_path_of(node) or module, users_line(node) or line
        if _is_users(frame.f_code.co_filename):
            line = f"{frame.f_code.co_filename}:{number}"
    return module, line


def _operator_in(error: BaseException) -> str:
    """The innermost operator of torch that an exception came through; empty if it came through none."""
    called = ""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        for name in ("self", "func"):
            value = frame.f_locals.get(name)
            called = str(value) if isinstance(value, torch._ops.OpOverload) else called
    return called


def _is_users(file: str) -> bool:
    return not file.startswith(_NOT_THE_USERS)


def users_line(node: fx.Node) -> str:
    """The line of the user's code that a node of a graph came from, where that is known."""
    return _users_line(node.meta.get("stack_trace") or "")


def _users_line(trace: str) -> str:
    """The innermost line of the user's code in a stack trace's text."""
    frames = [frame for frame in _FRAME.finditer(trace) if _is_users(frame["file"])]
    if not frames:
        return ""
    code = f": {frames[-1]['code'].strip()}" if frames[-1]["code"] else ""
    return f"{frames[-1]['file']}:{frames[-1]['line']}{code}"


def in_words(module: str, line: str) -> str:
    """Where something is, to be appended to it: ``, in module 'a' (file:line: code)``."""
    where = f", in module {module!r}" if module else ""
    return f"{where} ({line})" if line else where


def _text(error: BaseException, lines: int = 3) -> str:
    """The first lines of what an exception says; without what torch.fx adds to it."""
    said = str(error).split("\nWhile executing %")[0]
    text = " ".join([line.strip() for line in said.splitlines() if line.strip()][:lines])
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
