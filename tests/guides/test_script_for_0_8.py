"""A script as people wrote it for embedl-deploy 0.8: other names for what the guides do, and the same results."""

from collections import Counter
from pathlib import Path

import onnx
import torch
from torch import nn

from embedl_deploy import export_onnx
from embedl_deploy.backend import use_backend
from embedl_deploy.quantize import IntegerWeight, Quantizer, quantization_report


class TestScriptFor08:
    def test_runs_as_written(self, vit: nn.Module, tmp_path: Path) -> None:
        model = vit
        with use_backend("tensorrt"):  # 0.8 had no other
            # ----------------------------------------------------------------------------------------------------------
            from embedl_deploy import transform
            from embedl_deploy.quantize import (
                CalibrationMethod,
                ModulesToSkip,
                Precision,
                QuantConfig,
                TensorQuantConfig,
                quantize,
            )

            args = (torch.randn(2, 3, 32, 32),)
            fused = transform(model, args).model
            batches = [torch.randn(2, 3, 32, 32) for _ in range(3)]

            def forward_loop(model):
                for batch in batches:
                    model(batch)

            config = QuantConfig(
                activation=TensorQuantConfig(
                    Precision.INT8,
                    symmetric=True,
                    per_channel=False,
                    calibration_method=CalibrationMethod.MINMAX,
                ),
                weight=TensorQuantConfig(
                    Precision.INT8,
                    symmetric=True,
                    per_channel=True,
                    calibration_method=CalibrationMethod.MINMAX,
                ),
                skip=ModulesToSkip(
                    stub={fused.conv_proj, nn.LayerNorm},
                    weight={fused.conv_proj},
                    smooth={nn.LayerNorm},
                ),
            )
            quantized = quantize(
                fused,
                args=args,
                config=config,
                forward_loop=forward_loop,
                freeze_weights=True,
            )
            # ----------------------------------------------------------------------------------------------------------
        report = quantization_report(quantized)
        assert {(point.path, point.label) for point in report.not_quantized} == {
            ("conv_proj", "input 0"),
            ("conv_proj", "weight"),
        }
        # Frozen: the weights of two blocks (q/k/v, output, two of the perceptron) and of the head are integers.
        integers = [module for module in quantized.modules() if isinstance(module, IntegerWeight)]
        assert len(integers) == 2 * 4 + 1 and all(w.values.dtype is torch.int8 for w in integers)
        assert all(w.scale.shape == w.values.shape[:1] for w in integers)  # per channel
        stubs = [module for module in quantized.modules() if isinstance(module, Quantizer)]
        assert all(s.zero_point is None and s.scale.shape == () and s.scale > 0 for s in stubs)
        # The scales are those of forward_loop, not of args.
        largest = max(float(batch.abs().max()) for batch in batches)
        config_of_all = QuantConfig(policy=lambda point: None if point.path == "conv_proj" else "the input only")
        first = quantize(fused, forward_loop, config_of_all).get_submodule("x_quant").quantizer
        assert abs(float(first.scale) - largest / 127) < 1e-6
        with torch.no_grad():
            exact = model(*args)
            assert 0 < (quantized(*args) - exact).norm() < 0.1 * exact.norm()
        export_onnx(quantized, args, tmp_path / "model.onnx")
        counts = Counter(node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node)
        assert counts["QuantizeLinear"] == len(stubs)
        assert counts["DequantizeLinear"] == len(stubs) + len(integers)

    def test_sets_hold_modules_or_module_types(self, vit: nn.Module) -> None:
        from embedl_deploy import transform
        from embedl_deploy.quantize import ModulesToSkip, QuantConfig, quantize

        x = torch.randn(2, 3, 32, 32)
        fused = transform(vit, (x,), backend="tensorrt").model
        head = fused.get_submodule("heads.head")
        skip = ModulesToSkip(stub={nn.Conv2d}, weight={head, nn.Conv2d}, smooth={nn.LayerNorm, head})
        quantized = quantize(fused, args=(x,), config=QuantConfig(skip=skip), smooth_quant=0.5)
        report = quantization_report(quantized)
        assert {(point.path, point.label): point.rule for point in report.not_quantized} == {
            ("conv_proj", "input 0"): "skip: Conv2d",
            ("conv_proj", "weight"): "skip: Conv2d",
            ("heads.head", "weight"): "skip: this very FusedLinear",
        }
        # Smoothed, if that does no harm, are only products whose input comes from no layer norm: of each block the
        # output projection and the second of the perceptron.
        places = [correction for correction in report.corrections if not correction.is_of_the_model]
        smoothed = [place.where for place in places if not place.outcome.startswith("declined: skip")]
        assert len(smoothed) == 2 * 2 and not any("ln" in where.split("_") for where in smoothed)
        refused = [place.outcome for place in places if place.where not in smoothed]
        assert refused == ["declined: skip: LayerNorm"] * 2 * 2
