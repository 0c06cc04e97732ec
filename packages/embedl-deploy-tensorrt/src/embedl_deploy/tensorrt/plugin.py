"""The TensorRT backend's hooks: what core finds through the entry point ``tensorrt``."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from embedl_deploy.backend import BackendInfo, Compiler, QuantPolicy, Rule, hookimpl
from embedl_deploy.engine import Device
from embedl_deploy.patterns import Pattern
from embedl_deploy.tensorrt.checks import TENSORRT_RULES
from embedl_deploy.tensorrt.compilers import TENSORRT_COMPILERS
from embedl_deploy.tensorrt.files.finishing import finish
from embedl_deploy.tensorrt.gpus import TENSORRT_GPUS
from embedl_deploy.tensorrt.groups import TENSORRT_CONVERSION_PATTERNS, TENSORRT_FUSION_PATTERNS
from embedl_deploy.tensorrt.policies import quantize_all, quantize_mixed
from embedl_deploy.tensorrt.rtx_policy import quantize_for_rtx

if TYPE_CHECKING:
    import onnx_ir as ir

#: The policies by name, the default first.
TENSORRT_POLICIES: dict[str, QuantPolicy] = {"all": quantize_all, "mixed": quantize_mixed, "rtx": quantize_for_rtx}


@hookimpl
def embedl_deploy_describe() -> BackendInfo:
    """Name the target."""
    description = "Compiler and runtime for NVIDIA GPUs; reads ONNX with explicit Q/DQ."
    return BackendInfo("NVIDIA TensorRT", description, domains=("trt",))


@hookimpl
def embedl_deploy_conversions() -> Sequence[Pattern]:
    """The structural rewrites."""
    return TENSORRT_CONVERSION_PATTERNS


@hookimpl
def embedl_deploy_fusions() -> Sequence[Pattern]:
    """The fusions."""
    return TENSORRT_FUSION_PATTERNS


@hookimpl
def embedl_deploy_quantization_policies() -> Mapping[str, QuantPolicy]:
    """Where quantizers do not pay."""
    return TENSORRT_POLICIES


@hookimpl
def embedl_deploy_finish_onnx(model: "ir.Model") -> None:
    """TensorRT's operators for activations in blocks, and no E8M0, which the parser does not take."""
    finish(model)


@hookimpl
def embedl_deploy_compilers() -> Sequence[Compiler]:
    """The compilers, the preferred first."""
    return TENSORRT_COMPILERS


@hookimpl
def embedl_deploy_devices() -> Sequence[Device]:
    """Peak rates of GPUs."""
    return TENSORRT_GPUS


@hookimpl
def embedl_deploy_check_rules() -> Sequence[Rule]:
    """What TensorRT asks of ONNX files."""
    return TENSORRT_RULES
