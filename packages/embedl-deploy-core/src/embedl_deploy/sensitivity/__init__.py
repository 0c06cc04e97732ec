"""Sensitivity: what quantizing each layer costs the outputs, and what leaving it in float gives back."""

from embedl_deploy.sensitivity.api import sensitivity
from embedl_deploy.sensitivity.report import LayerSensitivity, SensitivityReport

__all__ = ["LayerSensitivity", "SensitivityReport", "sensitivity"]
