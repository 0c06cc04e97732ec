"""What a file computes of constants, computed before it is written.

The exporter folds constants of up to 8192 elements. Tables of relative positions, and masks of windows, are larger. A
compiler computes them once, too, but merges less around them: attention may be one kernel only if what is added to the
scores is a constant of the file; else torchvision's swin_t has nine kernels in its place (docs/attention_forms.md).
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir

#: Elements of a constant that something is computed of. Weights are left alone: of them a file quantizes, if anything.
LARGEST = 2**22


def fold_large(model: "onnx_ir.Model") -> None:
    """Fold constants of up to :data:`LARGEST` elements, after the exporter's own optimizer."""
    import onnx_ir.passes
    from onnx_ir.passes import common
    from onnxscript.optimizer import fold_constants

    if fold_constants(model, input_size_limit=LARGEST).modified:
        onnx_ir.passes.Sequential(
            common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
            common.RemoveUnusedNodesPass(),
        )(model)
