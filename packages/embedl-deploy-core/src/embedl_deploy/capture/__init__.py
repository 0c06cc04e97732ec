"""Capture: turns a model into a graph that computes the same."""

from embedl_deploy.capture.capture import Trace, capture
from embedl_deploy.capture.captured import Captured
from embedl_deploy.capture.example_inputs import normalize_args
from embedl_deploy.capture.programs import module_of

__all__ = ["Captured", "Trace", "capture", "module_of", "normalize_args"]
