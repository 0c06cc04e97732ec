"""A batch dimension that is left open."""

from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from embedl_deploy.capture.capture import NOT_SYMBOLIC
from embedl_deploy.errors import ExportError, InputError


def without_batch_of_one(inputs: Any) -> Any:
    """Batches of one repeated: torch.export takes a size of one for a constant, even where told not to."""

    def double(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and value.dim() > 0 and value.shape[0] == 1:
            return value.expand(2, *value.shape[1:]).clone()
        return value

    return pytree.tree_map(double, inputs)


def dynamic_first_dimension(example: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """For ``torch.export``: which dimensions of the inputs are open.

    Raises:
        InputError: There are keyword inputs.
    """
    batch = torch.export.Dim("batch", min=1)

    def shape(value: Any) -> dict[int, Any] | None:
        return {0: batch} if isinstance(value, torch.Tensor) and value.dim() > 0 else None

    if named:
        raise InputError("dynamic_batch takes positional inputs only; pass all inputs in args.")
    return tuple(pytree.tree_map(shape, value) for value in example)


def check_open_batch(model: nn.Module, inputs: Any, shapes: Any) -> None:
    """The exporter closes a dimension that the model fixes, without a word.

    Args:
        model: What was exported.
        inputs: The inputs of the exported graph, of ``onnx_ir``.
        shapes: Which dimensions were to be open.

    Raises:
        ExportError: An input whose batch was to be open has a fixed one.
    """
    wanted = [shape for shape in pytree.tree_leaves(shapes, is_leaf=lambda s: isinstance(s, dict)) if shape]
    fixed = [value.name for value in inputs if value.shape and isinstance(value.shape[0], int)]
    if not wanted or not fixed:
        return
    names = ", ".join(map(repr, fixed))
    if holds_sizes_of_its_capture(model):
        raise ExportError(fixed_by_capture(model, f"input(s) {names}"))
    raise ExportError(
        f"The model fixes the batch size of its input(s) {names}, as a view of a literal size does, so it cannot be "
        "exported with dynamic_batch=True. Nothing was written. Compute the size from the input (x.shape[0], -1), or "
        "pass dynamic_batch=False."
    )


def fixed_by_capture(model: nn.Module, what: str) -> str:
    """What to say where ``torch.export`` has fixed the batch of ``what`` when the model was captured."""
    cannot = isinstance(model, fx.GraphModule) and model.meta.get(NOT_SYMBOLIC)
    symbolic = "" if cannot else 'Transform the model with trace="symbolic". Or export'
    return (
        f"The batch size of the {what} is that of the example inputs that the model was captured with: torch.export "
        "keeps their sizes in the graph. So it cannot be exported with dynamic_batch=True. Nothing was written. "
        f"{symbolic or 'Export'} it with an open batch yourself, program = torch.export.export(model, args, "
        "dynamic_shapes=...) with {0: torch.export.Dim('batch')} for each input, and transform(program, args). Or pass "
        "dynamic_batch=False."
    )


def holds_sizes_of_its_capture(model: nn.Module) -> bool:
    """Whether ``torch.export`` made a graph: it checks the sizes of its inputs, or computes with ATen's operators."""
    if not isinstance(model, fx.GraphModule):
        return False
    targets = [node.target for node in model.graph.nodes]
    return any(
        target == "_guards_fn" or (isinstance(target, torch._ops.OpOverload) and target.namespace == "aten")
        for target in targets
    )
