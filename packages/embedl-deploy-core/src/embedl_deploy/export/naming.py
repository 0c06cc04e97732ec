"""Names of a file's inputs and outputs: those that were asked for, else of forward's parameters and of the graph."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from embedl_deploy.errors import InputError

if TYPE_CHECKING:
    import onnx_ir as ir

#: What passes of the exporter add to the name of an input that is an output as well.
_RENAMED = "_orig"


def name_values(
    model: "ir.Model",
    input_names: Sequence[str] | None,
    output_names: Sequence[str] | None,
    keys: tuple[Sequence[str | None], Sequence[str | None]] = ((), ()),
) -> None:
    """Name a model's inputs and outputs, in place. An input that the model returns keeps its name.

    Args:
        model: As torch's exporter left it.
        input_names: All inputs' names, in order, or ``None``.
        output_names: All outputs' names, in order, or ``None``.
        keys: Names of inputs and of outputs that lie in structures; ``None`` for those that do not.

    Raises:
        InputError: There are more or fewer names than values, or one is given twice.
    """
    from onnx_ir.passes import common

    inputs, outputs = list(model.graph.inputs), list(model.graph.outputs)
    wanted = _names_for(inputs, input_names, "input", keys[0])
    returned = {value.name for value in outputs}
    if input_names is None:
        wanted = [_as_declared(name, returned) for name in wanted]
    results = _names_for(outputs, output_names, "output", keys[1])
    if output_names is None:
        results = [f"{name}_out" if name in wanted else name for name in results]
    twice = sorted({name for name in (*wanted, *results) if [*wanted, *results].count(name) > 1})
    if twice:
        raise InputError(
            f"The name(s) {', '.join(map(repr, twice))} would be given to two inputs or outputs of the file. Choose "
            "input_names and output_names that are all different."
        )
    for place, value in enumerate((*inputs, *outputs)):  # first out of each other's way
        value.name = f"{place}.of.the.file"
    for value, name in zip((*inputs, *outputs), (*wanted, *results), strict=True):
        value.name = name
    common.NameFixPass()(model)


def _names_for(
    values: "list[ir.Value]", names: Sequence[str] | None, kind: str, keys: Sequence[str | None]
) -> list[str]:
    found = [str(value.name) for value in values]
    if len(keys) == len(found) and len(set(filter(None, keys))) == sum(key is not None for key in keys):
        found = [name if key is None else key for name, key in zip(found, keys, strict=True)]
    if names is None:
        return found
    if not all(names) or len(names) != len(found):
        raise InputError(
            f"{kind}_names is {names!r}, but the file has {len(found)} {kind}(s): {', '.join(found)}. Pass a list with "
            "one name for each."
        )
    return list(names)


def _as_declared(name: str, returned: set[str | None]) -> str:
    base = name.removesuffix(_RENAMED)
    return base if base in returned else name
