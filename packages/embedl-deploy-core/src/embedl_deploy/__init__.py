"""Prepare PyTorch models for the hardware they are deployed on: rewrite, verify, quantize, export.

Hardware knowledge comes from backends, which are distributions of their own; importing this package loads none. What it
offers is imported when it is asked for, because torch, which takes seconds, comes with it.
"""

from pkgutil import extend_path as _extend_path
from typing import TYPE_CHECKING

# A backend may ship a sub-package of this name from a distribution, and a folder, of its own.
__path__ = _extend_path(__path__, __name__)

if TYPE_CHECKING:
    from embedl_deploy.capture import Trace
    from embedl_deploy.checking import check
    from embedl_deploy.compiling import CompileResult, compile  # noqa: A004 - the user's word for it
    from embedl_deploy.errors import EmbedlDeployError
    from embedl_deploy.export import OnnxExport, export_onnx
    from embedl_deploy.patterns import PatternMatch
    from embedl_deploy.pipeline import (
        apply_transformation_plan,
        get_transformation_plan,
        load_transformation_plan,
        transform,
    )
    from embedl_deploy.plan import TransformationPlan, TransformationReport, TransformationResult
    from embedl_deploy.stages import verify_stages

    __version__: str
else:
    # By name: where it is defined.
    _PLACES = {
        "CompileResult": "compiling",
        "EmbedlDeployError": "errors",
        "OnnxExport": "export",
        "PatternMatch": "patterns",
        "Trace": "capture",
        "TransformationPlan": "plan",
        "TransformationReport": "plan",
        "TransformationResult": "plan",
        "apply_transformation_plan": "pipeline",
        "check": "checking",
        "compile": "compiling",
        "export_onnx": "export",
        "get_transformation_plan": "pipeline",
        "load_transformation_plan": "pipeline",
        "transform": "pipeline",
        "verify_stages": "stages",
    }

    def __getattr__(name):
        """A public name, or one of the sub-packages, when it is first asked for."""
        from importlib import import_module

        if name == "__version__":
            from importlib.metadata import version

            found = version("embedl-deploy-core")
        elif name in _PLACES:
            found = getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
        elif name.startswith("_"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        else:
            try:
                found = import_module(f"{__name__}.{name}")
            except ModuleNotFoundError as error:
                if error.name != f"{__name__}.{name}":
                    raise
                raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
        globals()[name] = found
        return found

    def __dir__():
        return sorted({*globals(), *__all__})


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
