"""The ONNX Runtime backend's hooks: what core finds through the entry point ``onnxruntime``."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from embedl_deploy.backend import BackendInfo, Compiler, QuantPolicy, Rule, hookimpl
from embedl_deploy.numerics import QuantConfig
from embedl_deploy.patterns import Pattern
from embedl_deploy_onnxruntime.checks import ONNXRUNTIME_RULES
from embedl_deploy_onnxruntime.compiler import ONNXRUNTIME_COMPILERS
from embedl_deploy_onnxruntime.files import finish
from embedl_deploy_onnxruntime.formats import U8S8
from embedl_deploy_onnxruntime.groups import ONNXRUNTIME_CONVERSION_PATTERNS, ONNXRUNTIME_FUSION_PATTERNS
from embedl_deploy_onnxruntime.policies import quantize_all, quantize_mixed, quantize_products

if TYPE_CHECKING:
    import onnx_ir as ir

#: The policies by name, the default first.
ONNXRUNTIME_POLICIES: dict[str, QuantPolicy] = {
    "mixed": quantize_mixed,
    "all": quantize_all,
    "dynamic": quantize_products,
}


@hookimpl
def embedl_deploy_describe() -> BackendInfo:
    """Name the target."""
    return BackendInfo("ONNX Runtime", "Runtime for x86 and Arm processors; reads ONNX with explicit Q/DQ.")


@hookimpl
def embedl_deploy_conversions() -> Sequence[Pattern]:
    """The structural rewrites."""
    return ONNXRUNTIME_CONVERSION_PATTERNS


@hookimpl
def embedl_deploy_fusions() -> Sequence[Pattern]:
    """The fusions."""
    return ONNXRUNTIME_FUSION_PATTERNS


@hookimpl
def embedl_deploy_quantization_policies() -> Mapping[str, QuantPolicy]:
    """Where quantizers do not pay."""
    return ONNXRUNTIME_POLICIES


@hookimpl
def embedl_deploy_quantization_config() -> QuantConfig:
    """What is fast on x86, and works on any processor."""
    return U8S8


@hookimpl
def embedl_deploy_finish_onnx(model: "ir.Model") -> None:
    """Biases in INT32, and GELU as the runtime knows it."""
    finish(model)


@hookimpl
def embedl_deploy_compilers() -> Sequence[Compiler]:
    """The runtime itself."""
    return ONNXRUNTIME_COMPILERS


@hookimpl
def embedl_deploy_check_rules() -> Sequence[Rule]:
    """What keeps a layer from running in INT8."""
    return ONNXRUNTIME_RULES
