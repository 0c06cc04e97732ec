"""Quantization: explicit quantizers, their scales, and methods that keep accuracy."""

from embedl_deploy.numerics.config import LayerQuantConfig, LeftOpen, ModulesToSkip, QuantConfig
from embedl_deploy.numerics.formats import Precision
from embedl_deploy.numerics.tensor_config import CalibrationMethod, TensorQuantConfig
from embedl_deploy.quantize.accuracy.awq import AwqConfig
from embedl_deploy.quantize.accuracy.centering import CenteringConfig
from embedl_deploy.quantize.accuracy.smoothing import SmoothQuantConfig
from embedl_deploy.quantize.api import quantize
from embedl_deploy.quantize.calibration.calibrate import calibrate
from embedl_deploy.quantize.freezing import freeze, freeze_batchnorm
from embedl_deploy.quantize.placing.dynamic import DynamicQuantizer
from embedl_deploy.quantize.placing.hardware import default_config
from embedl_deploy.quantize.placing.placement import insert_qdq
from embedl_deploy.quantize.placing.quantizer import IntegerWeight, Quantizer
from embedl_deploy.quantize.recipe import QuantizationRecipe, quantization_recipe
from embedl_deploy.quantize.reporting.corrections import Correction
from embedl_deploy.quantize.reporting.report import PointReport, QuantizationReport, quantization_report
from embedl_deploy.quantize.synchronized import synchronize

__all__ = [
    "AwqConfig",
    "CalibrationMethod",
    "CenteringConfig",
    "Correction",
    "DynamicQuantizer",
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
    "synchronize",
]
