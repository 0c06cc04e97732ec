"""The rule about the versions that the runtime reads."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from embedl_deploy.artifact import opset_of
from embedl_deploy.backend import Rule, Severity, Undecided, Violation

if TYPE_CHECKING:
    import onnx_ir as ir

#: What ONNX Runtime 1.31 takes.
_OPSET = 26
_IR_VERSION = 13


class Versions(Rule):
    """ORT-19. ONNX Runtime 1.31.1 refuses newer ones when the session is made; older releases read less."""

    id = "ORT-19"
    severity = Severity.ERROR
    title = f"ONNX Runtime 1.31 reads operator sets up to {_OPSET} and ONNX IR versions up to {_IR_VERSION}."
    remedy = "Export with opset=21 or less; set model.ir_version = 10 before saving a file made with onnx.helper."

    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Compare the versions of the file with those that the runtime reads."""
        node = next(iter(model.graph.all_nodes()), None)
        if node is None:
            return
        for what, found, most in (
            ("operator set", opset_of(model), _OPSET),
            ("IR version", model.ir_version, _IR_VERSION),
        ):
            if found > most:
                yield Violation(node, f"the file has {what} {found}; the runtime reads up to {most}")
