"""Whether a compiler will take an ONNX file as it is meant: a backend's rules, run over the file."""

from embedl_deploy.checking.checker import check
from embedl_deploy.checking.report import CheckReport, Finding, NotJudged

__all__ = ["CheckReport", "Finding", "NotJudged", "check"]
