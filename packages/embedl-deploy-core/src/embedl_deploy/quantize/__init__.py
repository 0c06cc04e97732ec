"""The third stage: explicit quantizers, their scales, and what keeps accuracy."""

from embedl_deploy.quantize.api import quantize
from embedl_deploy.quantize.calibration import calibrate
from embedl_deploy.quantize.config import LayerQuantConfig, LeftOpen, ModulesToSkip, QuantConfig
from embedl_deploy.quantize.formats import CalibrationMethod, Precision, TensorQuantConfig
from embedl_deploy.quantize.freezing import freeze, freeze_batchnorm
from embedl_deploy.quantize.hardware import default_config
from embedl_deploy.quantize.placement import insert_qdq
from embedl_deploy.quantize.quantizer import IntegerWeight, Quantizer
from embedl_deploy.quantize.recipe import QuantizationRecipe, quantization_recipe
from embedl_deploy.quantize.report import Correction, PointReport, QuantizationReport, quantization_report
from embedl_deploy.quantize.smoothing import SmoothQuantConfig

__all__ = [
    "CalibrationMethod",
    "Correction",
    "IntegerWeight",
    "LayerQuantConfig",
    "LeftOpen",
    "ModulesToSkip",
    "PointReport",
    "Precision",
    "QuantConfig",
    "QuantizationRecipe",
    "QuantizationReport",
    "Quantizer",
    "SmoothQuantConfig",
    "TensorQuantConfig",
    "calibrate",
    "default_config",
    "freeze",
    "freeze_batchnorm",
    "insert_qdq",
    "quantization_recipe",
    "quantization_report",
    "quantize",
]
