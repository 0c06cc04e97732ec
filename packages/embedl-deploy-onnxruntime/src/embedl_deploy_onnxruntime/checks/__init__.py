"""The check rules for ONNX Runtime, defined in the files of this folder: what keeps a quantized layer in float."""

from embedl_deploy.backend import Rule, rules_in
from embedl_deploy_onnxruntime import checks

__all__ = ["ONNXRUNTIME_RULES"]

#: In the order of their numbers.
ONNXRUNTIME_RULES: tuple[Rule, ...] = rules_in(checks)
