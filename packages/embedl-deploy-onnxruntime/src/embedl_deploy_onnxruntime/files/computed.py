"""Constants that a file computes from others, such as a bias that is put together of parts."""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from embedl_deploy.artifact import Constants

if TYPE_CHECKING:
    import onnx_ir as ir


def constant_of(model: "ir.Model", value: "ir.Value | None") -> npt.NDArray[Any] | None:
    """The numbers of a value that is the same in every run, stored or computed; ``None`` for any other.

    Args:
        model: The file.
        value: One of its values.
    """
    if value is None or value not in Constants():
        return None
    return _computed(model, value)


def _computed(model: "ir.Model", value: "ir.Value") -> npt.NDArray[Any]:
    import onnx_ir as ir
    from onnx.reference import ReferenceEvaluator

    if value.const_value is not None:
        return value.const_value.numpy()
    node = value.producer()
    assert node is not None  # it is a constant
    inputs = {str(each.name): _computed(model, each) for each in node.inputs if each is not None}
    evaluator = ReferenceEvaluator(ir.to_proto(node), opsets=dict(model.opset_imports))
    (found,) = evaluator.run([str(value.name)], inputs)
    assert isinstance(found, np.ndarray)  # it has no other input than tensors
    return found
