"""Optimization Pipeline: every code block as written; conftest.py says what differs."""
# ruff: noqa: I001  # imports stand where the guide has them

import contextlib
import io
from collections import Counter
from pathlib import Path

import onnx
import pytest
import torch
from torch import fx, nn

from embedl_deploy import TransformationPlan, TransformationResult
from embedl_deploy.patterns import MatchStatus
from embedl_deploy.tensorrt import modules


@pytest.fixture
def result(model: nn.Module) -> TransformationResult:
    from embedl_deploy import transform
    from embedl_deploy.tensorrt import TENSORRT_PATTERNS

    return transform(model, patterns=TENSORRT_PATTERNS)


class TestPipelineGuide:
    """Optimization Pipeline."""

    def test_one_shot_api(self, capsys: pytest.CaptureFixture[str], example_input: torch.Tensor) -> None:
        # --------------------------------------------------------------------------------------------------------------
        import torch
        from torchvision.models import resnet50

        from embedl_deploy import transform
        from embedl_deploy.tensorrt import TENSORRT_PATTERNS

        model = resnet50(weights=None).eval()
        result = transform(model, patterns=TENSORRT_PATTERNS)

        deployable = result.model  # fused GraphModule
        print(f"Applied: {result.report['applied_count']}")
        print(f"Skipped: {result.report['skipped_count']}")
        # --------------------------------------------------------------------------------------------------------------
        assert isinstance(deployable, fx.GraphModule)
        assert torch.equal(deployable(example_input), model(example_input))
        # The classifier's conversion, and 55 fused modules; see tests/tensorrt/test_counts.py.
        applied, skipped = capsys.readouterr().out.splitlines()
        assert applied == "Applied: 56"
        assert int(skipped.removeprefix("Skipped: ")) == len(result.report["skipped"]) > 0

    def test_tracing_by_transform_and_by_hand(self, model: nn.Module, example_input: torch.Tensor) -> None:
        from embedl_deploy import transform
        from embedl_deploy.tensorrt import TENSORRT_PATTERNS

        # --------------------------------------------------------------------------------------------------------------
        # Option 1: Let transform() handle tracing
        result = transform(model, patterns=TENSORRT_PATTERNS)
        option_1 = result

        # Option 2: Trace yourself for full control
        graph_module = torch.fx.symbolic_trace(model)
        result = transform(graph_module, patterns=TENSORRT_PATTERNS)
        # --------------------------------------------------------------------------------------------------------------
        # "accepts both": the same rewrites, the same numbers
        assert option_1.report["applied"] == result.report["applied"]
        assert torch.equal(option_1.model(example_input), result.model(example_input))
        # conversions first, then fusions
        stages = [entry["stage"] for entry in result.report["applied"]]
        assert stages == sorted(stages, key=["conversion", "fusion"].index) and set(stages) == {"conversion", "fusion"}

    def test_plan_based_api(
        self, model: nn.Module, capsys: pytest.CaptureFixture[str], example_input: torch.Tensor
    ) -> None:
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        # --------------------------------------------------------------------------------------------------------------
        from embedl_deploy import get_transformation_plan, apply_transformation_plan
        from embedl_deploy.tensorrt import TENSORRT_PATTERNS

        graph_module = torch.fx.symbolic_trace(model)
        plan = get_transformation_plan(graph_module, patterns=TENSORRT_PATTERNS)

        # Inspect matches
        for node_name, pats in plan.matches.items():
            for pat_name, match in pats.items():
                print(f"{node_name}: {pat_name} (apply={match.apply})")

        # Disable specific matches
        plan.matches["maxpool"]["StemConvBNReLUMaxPoolPattern"].apply = False

        # Apply
        result = apply_transformation_plan(plan)
        # --------------------------------------------------------------------------------------------------------------
        lines = capsys.readouterr().out.splitlines()
        assert "maxpool: StemConvBNReLUMaxPoolPattern (apply=True)" in lines
        assert "relu: ConvBNReLUPattern (apply=False)" in lines
        assert isinstance(plan, TransformationPlan)
        assert plan.model is not graph_module  # "deep copy of the traced graph (never modifies the original)"
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
        assert type(model.conv1) is nn.Conv2d and type(graph_module.conv1) is nn.Conv2d
        stem = result.matches["maxpool"]["StemConvBNReLUMaxPoolPattern"]
        assert stem.apply is False and stem.status is MatchStatus.SKIPPED
        assert not any(isinstance(module, modules.FusedConvBNReLUMaxPool) for module in result.model.modules())
        assert torch.equal(result.model(example_input), model(example_input))

    def test_pattern_priority(self, model: nn.Module) -> None:
        from embedl_deploy.tensorrt.patterns import (
            AdaptiveAvgPoolPattern,
            ConvBNAddReLUPattern,
            ConvBNPattern,
            ConvBNReLUPattern,
            LayerNormPattern,
            LinearPattern,
            LinearReLUPattern,
            MHAInProjectionPattern,
            ScaledDotProductAttentionPattern,
            StemConvBNReLUMaxPoolPattern,
        )

        # --------------------------------------------------------------------------------------------------------------
        TENSORRT_FUSION_PATTERNS = [
            StemConvBNReLUMaxPoolPattern(),   # 4 nodes
            ConvBNAddReLUPattern(),           # 4 nodes (branching)
            ConvBNReLUPattern(),              # 3 nodes
            LinearReLUPattern(),              # 2 nodes
            ConvBNPattern(),                  # 2 nodes
            LinearPattern(),                  # 1 node
            LayerNormPattern(),               # 1 node
            AdaptiveAvgPoolPattern(),         # 1 node
            MHAInProjectionPattern(),         # 1 node
            ScaledDotProductAttentionPattern(), # 1 node
        ]  # fmt: skip
        # --------------------------------------------------------------------------------------------------------------
        from embedl_deploy import get_transformation_plan
        from embedl_deploy import tensorrt

        # The package has two more, and puts those that take as many nodes in another order, to the same effect.
        listed = [type(pattern) for pattern in TENSORRT_FUSION_PATTERNS]
        own_order = [p for p in tensorrt.TENSORRT_FUSION_PATTERNS if type(p) in listed]
        assert len(own_order) == len(listed)
        plan = get_transformation_plan(model, patterns=TENSORRT_FUSION_PATTERNS)
        applied, in_own_order = (
            {(match.pattern.name, match.node_names) for match in made if match.apply}
            for made in (plan, get_transformation_plan(model, patterns=own_order))
        )
        assert applied == in_own_order
        stem = plan.matches["maxpool"]["StemConvBNReLUMaxPoolPattern"]
        assert stem.apply and stem.node_names == ("conv1", "bn1", "relu", "maxpool")
        shorter = plan.matches["relu"]["ConvBNReLUPattern"]
        assert not shorter.apply and shorter.node_names == ("conv1", "bn1", "relu")
        assert shorter.reason == "overlaps StemConvBNReLUMaxPoolPattern at maxpool"

    def test_pattern_groups(self, model: nn.Module) -> None:
        from embedl_deploy import transform

        # --------------------------------------------------------------------------------------------------------------
        from embedl_deploy.tensorrt import (
            TENSORRT_CONVERSION_PATTERNS,
            TENSORRT_FUSION_PATTERNS,
            TENSORRT_PATTERNS,
            TENSORRT_QUANTIZED_PATTERNS,
        )

        # Run only fusions (skip conversions)
        result = transform(model, patterns=TENSORRT_FUSION_PATTERNS)
        only_fused = result

        # Run only conversions
        result = transform(model, patterns=TENSORRT_CONVERSION_PATTERNS)
        # --------------------------------------------------------------------------------------------------------------
        # "Union of all the above"
        union = [*TENSORRT_CONVERSION_PATTERNS, *TENSORRT_FUSION_PATTERNS, *TENSORRT_QUANTIZED_PATTERNS]
        assert set(union) <= set(TENSORRT_PATTERNS)
        assert {entry["stage"] for entry in only_fused.report["applied"]} == {"fusion"}
        assert isinstance(only_fused.model.fc, modules.FusedLinear)
        assert [entry["pattern"] for entry in result.report["applied"]] == ["FlattenLinearToConv1x1Pattern"]

    def test_verifying_numerical_equivalence(
        self, model: nn.Module, result: TransformationResult, example_input: torch.Tensor
    ) -> None:
        # --------------------------------------------------------------------------------------------------------------
        with torch.no_grad():
            y_original = model(example_input)
            y_deployed = result.model(example_input)

        max_diff = (y_original - y_deployed).abs().max().item()
        assert max_diff < 1e-5, f"Numerical mismatch: {max_diff}"
        # --------------------------------------------------------------------------------------------------------------
        assert y_original.abs().max() > 0.1  # the outputs are no zeros that anything would agree with
        assert result.verify(example_input).max_abs == max_diff

    # torch warns of its own old option dynamic_axes, and of what its exporter does to that option.
    @pytest.mark.filterwarnings("ignore:.*dynamic_axes.*:UserWarning")
    @pytest.mark.filterwarnings("ignore:.*dynamic_axes.*:DeprecationWarning")
    @pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")
    def test_onnx_export(self, result: TransformationResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        with contextlib.redirect_stdout(io.StringIO()):  # the exporter reports its progress
            # ----------------------------------------------------------------------------------------------------------
            torch.onnx.export(
                result.model.cpu().eval(),
                torch.randn(1, 3, 224, 224),
                "model_fused.onnx",
                opset_version=20,
                input_names=["input"],
                output_names=["output"],
                dynamic_axes={"input": {0: "batch"}, "output": {0: "batch"}},
            )
            # ----------------------------------------------------------------------------------------------------------
        onnx.checker.check_model("model_fused.onnx", full_check=True)
        graph = onnx.load("model_fused.onnx").graph
        assert [value.name for value in graph.input] == ["input"]
        assert [value.name for value in graph.output] == ["output"]
        sizes = graph.input[0].type.tensor_type.shape.dim
        assert sizes[0].dim_param and not sizes[0].dim_value and [size.dim_value for size in sizes[1:]] == [3, 224, 224]
        # The guide's last block runs trtexec, a program of TensorRT's own.

    def test_quantization_stage(self, tmp_path: Path) -> None:
        """No code block: "insert QDQ stubs at pattern-declared positions, calibrate, and optionally run QAT"."""
        from torchvision.models.resnet import BasicBlock, ResNet

        from embedl_deploy import export_onnx, transform
        from embedl_deploy.patterns import QDQPoint
        from embedl_deploy.quantize import Quantizer, calibrate, freeze_batchnorm, insert_qdq, quantization_report
        from embedl_deploy.tensorrt import TENSORRT_PATTERNS

        model = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=10).eval()
        images, labels = torch.randn(4, 3, 32, 32), torch.arange(4)
        result = transform(model, patterns=TENSORRT_PATTERNS)
        quantized = insert_qdq(result.model, result.matches)
        # "at pattern-declared positions"
        labels_of = {QDQPoint.INPUT: "input 0", QDQPoint.RESIDUAL_INPUT: "input 1", QDQPoint.OUTPUT: "output"}
        declared = {
            (name, labels_of[point])
            for row in result.matches.values()
            for match in row.values()
            for name in match.replaced_by
            for point in match.pattern.qdq_points
        }
        points = quantization_report(quantized).points
        assert {(point.node, point.label) for point in points if point.label != "weight"} == declared
        assert sum(point.label == "weight" for point in points) == 2 * 4 + 3 + 1 + 1  # blocks, shortcuts, stem, head
        # "calibrate scale/zero-point from representative data"
        calibrate(quantized, [images])
        quantizers = [module for module in quantized.modules() if isinstance(module, Quantizer)]
        assert all(q.zero_point is None and bool((q.scale.isfinite() & (q.scale > 0)).all()) for q in quantizers)
        with torch.no_grad():
            exact = model(images)
            assert 0 < (quantized(images) - exact).norm() < 0.1 * exact.norm()
        # "optionally run Quantization-Aware Training"
        optimizer = torch.optim.SGD(quantized.parameters(), lr=0.01)
        losses = []
        for _ in range(3):
            quantized.train()
            freeze_batchnorm(quantized)
            loss = nn.functional.cross_entropy(quantized(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert losses[2] < losses[0]
        # "an ONNX-exportable model with explicit QDQ nodes"
        export_onnx(quantized, images, tmp_path / "model.onnx")
        counts = Counter(node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node)
        assert counts["QuantizeLinear"] == counts["DequantizeLinear"] == len(quantizers)
