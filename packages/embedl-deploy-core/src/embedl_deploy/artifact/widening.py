"""Stores quantized numbers in wider formats, which have all of them, for compilers that lack the narrow ones."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from embedl_deploy.artifact.quantizers import DEQUANTIZE, nodes_of
from embedl_deploy.errors import InputError
from embedl_deploy.validation.checked import checked

if TYPE_CHECKING:
    import onnx_ir as ir


@checked
def widen_constants(model: "ir.Model", kinds: Mapping[str, str]) -> bool:
    """Store constants that DequantizeLinear reads, numbers and scales, in other types, in place.

    What is computed from them is the same, to the bit, where the other type has every number of theirs: E4M3 those of
    E2M1, float32 those of E8M0.

    Args:
        model: The file.
        kinds: Names of types, and of those that take their place: ``{"FLOAT8E8M0": "FLOAT"}``.

    Returns:
        Whether there was a constant of one of the types.

    Raises:
        InputError: ONNX has no type of one of the names.
    """
    import onnx_ir as ir

    unknown = sorted({*kinds, *kinds.values()} - set(ir.DataType.__members__))
    if unknown:
        raise InputError(f"kinds has {', '.join(unknown)}; expected names of ONNX's types, such as 'FLOAT8E8M0'.")
    other = {ir.DataType[kind]: ir.DataType[wider] for kind, wider in kinds.items()}
    made: dict[ir.Value, ir.Value] = {}
    for node in list(nodes_of(model, DEQUANTIZE)):
        for index, value in enumerate(node.inputs):
            number = None if value is None or value.dtype not in other else ir.convenience.get_const_tensor(value)
            if value is None or value.dtype is None or number is None:
                continue
            if value not in made:
                made[value] = _constant(node, value, number, other[value.dtype])
            node.replace_input_with(index, made[value])
    return bool(made)


def _constant(node: "ir.Node", value: "ir.Value", number: "ir.TensorProtocol", kind: "ir.DataType") -> "ir.Value":
    """The same numbers in another type, before ``node``, the first that reads them."""
    import onnx_ir as ir

    tensor = ir.tensor(number.numpy().astype(kind.numpy()), dtype=kind)
    output = ir.Value(name=f"{value.name}_{kind.name.lower()}", type=ir.TensorType(kind), shape=value.shape)
    constant = ir.Node("", "Constant", [], [ir.AttrTensor("value", tensor)], outputs=[output])
    constant.metadata_props.update(node.metadata_props)
    assert node.graph is not None  # it was found in one
    node.graph.insert_before(node, constant)
    return output
