"""Capture: from a model to a graph."""

from embedl_deploy.capture.capture import Captured, Trace, capture, normalize_args

__all__ = ["Captured", "Trace", "capture", "normalize_args"]
