"""The backend's hooks: what embedl-deploy finds through the entry point ``sensai``."""

from collections.abc import Mapping, Sequence

from torch import fx

from embedl_deploy.backend import BackendInfo, Compiler, QuantPolicy, Rule, hookimpl
from embedl_deploy.numerics import QuantConfig
from embedl_deploy.patterns import Pattern
from embedl_deploy_sensai_stub.checks import SENSAI_RULES
from embedl_deploy_sensai_stub.compiler import SENSAI_COMPILERS
from embedl_deploy_sensai_stub.explain import explain_unfused
from embedl_deploy_sensai_stub.groups import SENSAI_CONVERSION_PATTERNS, SENSAI_FUSION_PATTERNS
from embedl_deploy_sensai_stub.policy import fixed_point
from embedl_deploy_sensai_stub.quantization import SENSAI_QUANT_CONFIG


@hookimpl
def embedl_deploy_describe() -> BackendInfo:
    """Name the target."""
    return BackendInfo("Lattice sensAI (stub)", "Small CNN engine in 8-bit fixed point on low-power FPGAs.")


@hookimpl
def embedl_deploy_conversions() -> Sequence[Pattern]:
    """The structural rewrites."""
    return SENSAI_CONVERSION_PATTERNS


@hookimpl
def embedl_deploy_fusions() -> Sequence[Pattern]:
    """The fusions."""
    return SENSAI_FUSION_PATTERNS


@hookimpl
def embedl_deploy_explain_unfused(node: fx.Node) -> str | None:
    """Why the engine cannot run what no fusion took."""
    return explain_unfused(node)


@hookimpl
def embedl_deploy_quantization_policies() -> Mapping[str, QuantPolicy]:
    """What the engine gains nothing from."""
    return {"fixed_point": fixed_point}


@hookimpl
def embedl_deploy_quantization_config() -> QuantConfig:
    """The engine's fixed point."""
    return SENSAI_QUANT_CONFIG


@hookimpl
def embedl_deploy_check_rules() -> Sequence[Rule]:
    """What the engine asks of ONNX files."""
    return SENSAI_RULES


@hookimpl
def embedl_deploy_compilers() -> Sequence[Compiler]:
    """The hand-over to Lattice's compiler."""
    return SENSAI_COMPILERS
