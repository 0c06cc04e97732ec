"""Sensitivity: how much quantizing each layer changes the outputs, and what leaving it in float gains."""

from embedl_deploy.sensitivity.api import sensitivity
from embedl_deploy.sensitivity.report import LayerSensitivity, SensitivityReport

__all__ = ["LayerSensitivity", "SensitivityReport", "sensitivity"]
