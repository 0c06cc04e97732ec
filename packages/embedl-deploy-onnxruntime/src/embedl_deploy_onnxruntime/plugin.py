"""The ONNX Runtime backend's hooks: what core finds through the entry point ``onnxruntime``."""

from collections.abc import Sequence

from embedl_deploy.backend import BackendInfo, Compiler, Rule, hookimpl
from embedl_deploy_onnxruntime.checks import ONNXRUNTIME_RULES
from embedl_deploy_onnxruntime.compiler import ONNXRUNTIME_COMPILERS


@hookimpl
def embedl_deploy_describe() -> BackendInfo:
    """Name the target."""
    return BackendInfo("ONNX Runtime", "Runtime for x86 and Arm processors; reads ONNX with explicit Q/DQ.")


@hookimpl
def embedl_deploy_compilers() -> Sequence[Compiler]:
    """The runtime itself."""
    return ONNXRUNTIME_COMPILERS


@hookimpl
def embedl_deploy_check_rules() -> Sequence[Rule]:
    """What keeps a layer from running in INT8."""
    return ONNXRUNTIME_RULES
