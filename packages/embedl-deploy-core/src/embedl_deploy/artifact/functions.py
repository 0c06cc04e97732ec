"""Functions in a file: operators that it defines by others."""

from collections.abc import Collection
from typing import TYPE_CHECKING

from embedl_deploy.validation.checked import checked

if TYPE_CHECKING:
    import onnx_ir as ir


@checked
def inline_functions(model: "ir.Model", kept: Collection[str] = ()) -> None:
    """Put what a file's functions are made of in the place of every call of them, in place.

    What computes with an operator that only one compiler has can so be read, and run, in ONNX's own operators.

    Args:
        model: The file.
        kept: Domains whose functions stay: operators that the reader has itself.
    """
    from onnx_ir.passes.common import InlinePass

    if any(function.domain not in kept for function in model.functions.values()):
        InlinePass(criteria=lambda function: function.domain not in kept)(model)
