"""Names tensors inside structures in a file by the keys that lead to them.

::

    past_key_values=DynamicCache     past_key_values.0.key, past_key_values.0.value, past_key_values.1.key, …
    {"logits": …, "boxes": [a, b]}   logits, boxes.0, boxes.1
    the cache that is returned       present.0.key, present.0.value, …

A tensor that is an input or output itself, or one of several in a tuple that is returned, is called as the exporter
calls it.
"""

import inspect
from typing import Any

import torch
from torch import nn

from embedl_deploy.containers.paths import key_text, leaves_with_paths
from embedl_deploy.containers.states import is_state

#: What a model gives for its next call, and in a file of its own what language models' runtimes look for.
_PRESENT, _PAST = "present", "past_key_values"


def names_in_structures(
    model: nn.Module, program: "torch.onnx.ONNXProgram", args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[list[str | None], list[str | None]]:
    """Names of the tensors in inputs and in outputs, in order; ``None`` for one that lies in no structure.

    Args:
        model: What was exported.
        program: What became of it.
        args: The inputs.
        kwargs: The keyword inputs.
    """
    exported = program.exported_program
    return _names_of_inputs(model, args, kwargs), [] if exported is None else _names_of_outputs(exported)


def _names_of_inputs(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[str | None]:
    parameters = inspect.signature(model.forward).parameters.values()
    by_position = [p.name for p in parameters if p.kind <= p.POSITIONAL_OR_KEYWORD]
    rest = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), "input")
    names: list[str | None] = []
    for index, value in enumerate(args):
        name = by_position[index] if index < len(by_position) else f"{rest}_{index - len(by_position)}"
        names += _of_tensors(value, name)
    for name, value in kwargs.items():
        names += _of_tensors(value, name)
    return names


def _of_tensors(value: Any, name: str) -> list[str | None]:
    return [
        ".".join((name, *map(key_text, path))) if path else None
        for path, leaf in leaves_with_paths(value)
        if isinstance(leaf, torch.Tensor)
    ]


def _names_of_outputs(program: torch.export.ExportedProgram) -> list[str | None]:
    nodes = {node.name: node for node in program.graph.nodes}
    signature = program.graph_signature
    returned = [
        spec.arg for spec in signature.output_specs if spec.kind is torch.export.graph_signature.OutputKind.USER_OUTPUT
    ]
    values = [nodes[arg.name].meta["val"] if arg.name in nodes else None for arg in returned]
    output = program.call_spec.out_spec.unflatten(values)
    found = leaves_with_paths(output, is_state)
    several = sum(is_state(leaf) for _, leaf in found) > 1
    names: list[str | None] = []
    for path, leaf in found:
        keys = [key_text(key) for key in path]
        if keys and (keys[0].isdigit() and (len(keys) > 1 or is_state(leaf))):
            keys.insert(0, "output")
        if is_state(leaf):
            names += _of_tensors(leaf, ".".join((_PRESENT, *keys) if several else (_PRESENT,)))
        elif isinstance(leaf, torch.Tensor):
            named = keys and not keys[0].isdigit()
            keys[:1] = [_PRESENT] if keys[:1] == [_PAST] else keys[:1]
            names.append(".".join(keys) if named else None)
    return names
