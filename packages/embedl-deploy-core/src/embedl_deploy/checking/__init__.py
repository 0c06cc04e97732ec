"""Checks whether a compiler will accept an ONNX file and compile it as intended, with a backend's rules."""

from embedl_deploy.checking.checker import check
from embedl_deploy.checking.report import CheckReport, Finding, NotJudged

__all__ = ["CheckReport", "Finding", "NotJudged", "check"]
