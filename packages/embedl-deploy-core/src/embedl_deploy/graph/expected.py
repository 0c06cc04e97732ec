"""Compares the output of a module with the values of the nodes that it replaced: type, shape, device.

Sizes may be others than when the graph was captured, so shapes are compared where the inputs have those of then. A
module that gives no tensor, or writes to what it was given, is wrong whatever its inputs are.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx, nn

from embedl_deploy.graph.effects import overwrites
from embedl_deploy.graph.kinds import ONE_TENSOR
from embedl_deploy.graph.lookup import get_module, is_plain_torch_module
from embedl_deploy.graph.metadata import dtype_of, shape_of


@dataclass(frozen=True)
class Expected:
    """What is known of the value that some nodes gave.

    Attributes:
        inputs: Shapes of the tensors that flowed in, in the order of the arguments; ``None`` if one is not known.
        is_tensor: Whether the value is known to be one tensor.
        shape: Its shape; ``None`` if it is not known.
        dtype: Its dtype; ``None`` if it is not known.
        may_write: Whether the nodes overwrite an input, or may.
    """

    inputs: tuple[tuple[int, ...], ...] | None
    is_tensor: bool
    shape: tuple[int, ...] | None
    dtype: torch.dtype | None
    may_write: bool

    def __str__(self) -> str:
        return "a tensor" if self.shape is None or self.dtype is None else _tensor(self.shape, self.dtype)


def expected_of(replaced: Sequence[fx.Node]) -> Expected:
    """What a module must give that is to stand for some nodes, the last of which gives their value.

    To be asked while they are in the graph, with their modules where they were.
    """
    last = replaced[-1]
    module = get_module(last)
    of_torch = isinstance(module, ONE_TENSOR) and not getattr(module, "return_indices", False)
    return Expected(
        inputs=None,
        is_tensor=shape_of(last) is not None or of_torch,
        shape=shape_of(last),
        dtype=dtype_of(last),
        may_write=any(overwrites(node) or _is_unknown(node) for node in replaced),
    )


def with_inputs(expected: Expected, call: fx.Node) -> Expected:
    """The same with the shapes that flow into the call of the module, if they are known."""
    shapes = [shape_of(node) for node in call.all_input_nodes]
    known = tuple(shape for shape in shapes if shape is not None)
    return replace(expected, inputs=known if len(known) == len(shapes) else None)


def _is_unknown(node: fx.Node) -> bool:
    module = get_module(node) if node.op == "call_module" else None
    return module is not None and not is_plain_torch_module(module)


def what_is_wrong(expected: Expected, module: nn.Module, inputs: Sequence[torch.Tensor], output: Any) -> str:
    """What is wrong with the output of a call, as the end of a sentence about the module; empty if nothing is.

    Args:
        expected: What the replaced nodes gave.
        module: The module.
        inputs: The tensors that it was called with.
        output: What it gave.
    """
    if not isinstance(output, torch.Tensor):
        return f"returns {describe_value(output)}, expected {expected}" if expected.is_tensor else ""
    given = _tensor(tuple(output.shape), output.dtype)
    shapes = tuple(tuple(tensor.shape) for tensor in inputs)
    if expected.shape is not None and expected.inputs is not None:
        same_inputs = shapes == expected.inputs
        same_ranks = [len(shape) for shape in shapes] == [len(shape) for shape in expected.inputs]
        fits = tuple(output.shape) == expected.shape if same_inputs else output.dim() == len(expected.shape)
        if same_ranks and not fits:
            return f"returns {given}, expected {expected}" + ("" if same_inputs else ", with other sizes")
    own = (*inputs, *module.parameters(), *module.buffers())
    if expected.dtype is not None and not _is_usual(output.dtype, expected.dtype, own):
        return f"returns {given}, expected {_name(expected.dtype)}"
    devices = list(dict.fromkeys(tensor.device for tensor in own))
    if devices and output.device not in devices:
        return f"returns a tensor on {output.device}, expected {' or '.join(map(str, devices))}"
    return ""


def _is_usual(dtype: torch.dtype, wanted: torch.dtype, own: Sequence[torch.Tensor]) -> bool:
    """Whether a dtype is the one of then, or one that a model that was converted since has."""
    if dtype == wanted or torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda"):
        return True
    return dtype.is_floating_point and wanted.is_floating_point and dtype in {tensor.dtype for tensor in own}


def describe_value(value: Any) -> str:
    """A value in words: of what kind it is, and of what kind its parts are."""
    if isinstance(value, torch.Tensor):
        return _tensor(tuple(value.shape), value.dtype)
    if isinstance(value, (tuple, list)):
        parts = ", ".join(describe_value(part) for part in value[:3])
        return f"a {type(value).__name__} of {len(value)} ({parts}{', …' if len(value) > 3 else ''})"
    return "None" if value is None else f"a {type(value).__name__}"


def _tensor(shape: tuple[int, ...], dtype: torch.dtype) -> str:
    return f"{_name(dtype)}{list(shape)}"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
