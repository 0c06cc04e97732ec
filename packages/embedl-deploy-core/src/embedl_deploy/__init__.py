"""Make PyTorch models fit the hardware they are deployed on: rewrite, prove, quantize, export.

Hardware knowledge comes from backends, which are distributions of their own; importing this package loads none.
"""

from importlib.metadata import version as _version
from pkgutil import extend_path as _extend_path

# A backend may ship a sub-package of this name from a distribution, and a folder, of its own.
__path__ = _extend_path(__path__, __name__)

from embedl_deploy.capture import Trace
from embedl_deploy.checking import check
from embedl_deploy.compiling import CompileResult, compile  # noqa: A004 - the user's word for it
from embedl_deploy.errors import EmbedlDeployError
from embedl_deploy.export import OnnxExport, export_onnx
from embedl_deploy.patterns import PatternMatch
from embedl_deploy.pipeline import (
    TransformationResult,
    apply_transformation_plan,
    get_transformation_plan,
    load_transformation_plan,
    transform,
)
from embedl_deploy.plan import TransformationPlan, TransformationReport
from embedl_deploy.stages import verify_stages

__version__ = _version("embedl-deploy-core")

__all__ = [
    "CompileResult",
    "EmbedlDeployError",
    "OnnxExport",
    "PatternMatch",
    "Trace",
    "TransformationPlan",
    "TransformationReport",
    "TransformationResult",
    "__version__",
    "apply_transformation_plan",
    "check",
    "compile",
    "export_onnx",
    "get_transformation_plan",
    "load_transformation_plan",
    "transform",
    "verify_stages",
]
