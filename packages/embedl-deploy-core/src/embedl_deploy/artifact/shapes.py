"""The shapes of all values of a file with open dimensions, for given shapes of its inputs."""

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from embedl_deploy.artifact.questions import fixed_sizes_of
from embedl_deploy.logs import quiet
from embedl_deploy.validation.checked import checked

if TYPE_CHECKING:
    import onnx_ir as ir


@checked
def shapes_at(model: "ir.Model", inputs: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]]:
    """What shape each value has, by its name, as far as ONNX's own inference finds out.

    Args:
        model: The file. Not changed.
        inputs: Shapes of its inputs by name; those that are left out are as the file says.
    """
    import onnx_ir as ir
    from onnx_ir.passes.common import ShapeInferencePass
    from onnxscript.optimizer import fold_constants

    model = model.clone()  # shares the weights
    for value in model.graph.inputs:
        if value.name is not None and value.name in inputs:
            value.shape = ir.Shape(inputs[value.name])
    computed = [value for node in model.graph.all_nodes() for value in node.outputs]
    for value in computed:
        value.shape = None  # what the file says of it has names for open sizes, which inference would keep
    with quiet("onnx_ir", below=logging.CRITICAL), quiet("onnxscript", below=logging.CRITICAL):
        fold_constants(model, onnx_shape_inference=True)  # sizes that are computed, in ways that inference cannot
        # Not strict: an operator of another domain leaves its own outputs unknown, and what follows from them.
        ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)
    found = ((value.name, fixed_sizes_of(value)) for value in [*model.graph.inputs, *computed])
    return {name: shape for name, shape in found if name and shape is not None}
