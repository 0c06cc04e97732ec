"""Every code block of the four guides that the project is made from, as written.

Three things differ, everywhere: imports of ``_internal`` are the public ones, ``weights="DEFAULT"`` is ``weights=None``
(nothing can be downloaded), and what waits for quantization is left out, with a comment in its place. Code stands
between ``# ---`` lines; what a block takes over from an earlier one comes in through fixtures of the same names, and
what the text around a block claims is asserted after it.
"""
# ruff: noqa: I001  # imports stand where the guides have them, and the guides print

import contextlib
import io
from collections import Counter
from pathlib import Path

import onnx
import pytest
import torch
import torch.nn as nn
from torch import fx

from embedl_deploy import TransformationPlan, TransformationResult
from embedl_deploy.patterns import MatchStatus
from embedl_deploy.tensorrt import modules


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    from torchvision.models import resnet50

    torch.manual_seed(0)
    return resnet50(weights=None).eval()


@pytest.fixture
def graph_module(model: nn.Module) -> fx.GraphModule:
    return torch.fx.symbolic_trace(model)


@pytest.fixture
def result(model: nn.Module) -> TransformationResult:
    from embedl_deploy import transform
    from embedl_deploy.tensorrt import TENSORRT_PATTERNS

    return transform(model, patterns=TENSORRT_PATTERNS)


@pytest.fixture
def example_input() -> torch.Tensor:
    return torch.randn(1, 3, 224, 224)


@pytest.fixture(scope="module")
def convnext() -> nn.Module:
    import torchvision

    torch.manual_seed(0)
    return torchvision.models.convnext_tiny(weights=None).eval()


def called(graph_module: fx.GraphModule) -> list[nn.Module]:
    """The modules that a graph calls, in order."""
    return [graph_module.get_submodule(node.target) for node in graph_module.graph.nodes if node.op == "call_module"]


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

        # The list is in the package's, in this order; the package has two more in between.
        listed = [type(pattern) for pattern in TENSORRT_FUSION_PATTERNS]
        assert [type(p) for p in tensorrt.TENSORRT_FUSION_PATTERNS if type(p) in listed] == listed
        plan = get_transformation_plan(model, patterns=TENSORRT_FUSION_PATTERNS)
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


class TestConversionsGuide:
    """Graph Conversions."""

    def test_resnet50_classifier(self, model: nn.Module) -> None:
        """No code block: the guide draws avgpool → flatten → fc, and avgpool → fc (1×1) → flatten."""
        from embedl_deploy import transform
        from embedl_deploy.tensorrt import TENSORRT_CONVERSION_PATTERNS, TENSORRT_PATTERNS

        converted = transform(model, patterns=TENSORRT_CONVERSION_PATTERNS).model
        avgpool, fc, flatten, output = list(converted.graph.nodes)[-4:]
        assert (avgpool.target, fc.target) == ("avgpool", "fc") and "flatten" in flatten.name and output.op == "output"
        assert isinstance(converted.fc, nn.Conv2d) and converted.fc.weight.shape == (1000, 2048, 1, 1)
        # "then picked up by ConvBNPattern during the fusion stage"
        assert isinstance(transform(model, patterns=TENSORRT_PATTERNS).model.fc, modules.FusedConvBN)

    def test_convnext(self, convnext: nn.Module) -> None:
        model = convnext
        from embedl_deploy import transform
        from embedl_deploy.tensorrt import TENSORRT_PATTERNS

        # --------------------------------------------------------------------------------------------------------------
        from torch.fx.passes.shape_prop import ShapeProp

        graph_module = torch.fx.symbolic_trace(model)
        ShapeProp(graph_module).propagate(torch.randn(1, 3, 224, 224))
        result = transform(graph_module, patterns=TENSORRT_PATTERNS)
        # --------------------------------------------------------------------------------------------------------------
        assert result.report["failed_count"] == 0
        # torchvision's ConvNeXt pools 7×7 to 1×1, which is no identity, so this pool stays.
        refusals = [d["reason"] for d in result.report["declined"] if "IdentityAdaptiveAvgPool" in d["pattern"]]
        assert refusals == ["it pools 7×7 to 1×1"]
        assert any(isinstance(module, modules.FusedAdaptiveAvgPool2d) for module in result.model.modules())
        # torch's own tracer keeps LayerNorm2d whole, ours traces through it; the head is behind one.
        assert result.verify(torch.randn(1, 3, 224, 224)).max_rel <= 1e-5

    def test_vision_transformer(self) -> None:
        """No code block: each attention becomes three modules, and the fusions wrap them."""
        import torchvision

        from embedl_deploy import transform
        from embedl_deploy.tensorrt import TENSORRT_CONVERSION_PATTERNS, TENSORRT_PATTERNS

        vit = torchvision.models.vision_transformer.VisionTransformer(32, 16, 2, 2, 16, 32, num_classes=10).eval()
        converted = transform(vit, patterns=TENSORRT_CONVERSION_PATTERNS)
        applied = Counter(entry["pattern"] for entry in converted.report["applied"])
        assert applied["DecomposeMultiheadAttentionPattern"] == 2
        kinds = Counter(type(module) for module in called(converted.model))
        assert kinds[modules.MHAInProjection] == kinds[modules.ScaledDotProductAttention] == 2
        fused = Counter(entry["pattern"] for entry in transform(vit, patterns=TENSORRT_PATTERNS).report["applied"])
        assert fused["MHAInProjectionPattern"] == fused["ScaledDotProductAttentionPattern"] == 2
        assert fused["LinearPattern"] == 2 + 2 + 1  # "The output projection nn.Linear is matched by LinearPattern."

    def test_running_conversions_only(self, model: nn.Module, example_input: torch.Tensor) -> None:
        # --------------------------------------------------------------------------------------------------------------
        from embedl_deploy import transform
        from embedl_deploy.tensorrt import TENSORRT_CONVERSION_PATTERNS

        # Apply only structural conversions
        result = transform(model, patterns=TENSORRT_CONVERSION_PATTERNS)
        converted_model = result.model
        # --------------------------------------------------------------------------------------------------------------
        assert not any(isinstance(module, modules.FusedConvBN) for module in converted_model.modules())
        torch.testing.assert_close(converted_model(example_input), model(example_input), rtol=1e-5, atol=1e-5)


class TestFusionsGuide:
    """Operator Fusions."""

    def test_running_fusions_only_and_counting(
        self, model: nn.Module, capsys: pytest.CaptureFixture[str], example_input: torch.Tensor
    ) -> None:
        # --------------------------------------------------------------------------------------------------------------
        from embedl_deploy import transform
        from embedl_deploy.tensorrt import TENSORRT_FUSION_PATTERNS

        result = transform(model, patterns=TENSORRT_FUSION_PATTERNS)
        # --------------------------------------------------------------------------------------------------------------
        # The next block of the guide: "To inspect what was fused".
        # --------------------------------------------------------------------------------------------------------------
        from collections import Counter

        fused_counts = Counter(
            type(m).__name__
            for m in result.model.modules()
            if hasattr(type(m).__name__, 'startswith')
            and type(m).__name__.startswith('Fused')
        )  # fmt: skip
        for name, count in sorted(fused_counts.items()):
            print(f" {name}: {count}")
        # --------------------------------------------------------------------------------------------------------------
        # The guide's own table does not add up to ResNet-50's 53 convolutions; these numbers do. Without the conversion
        # the classifier is a FusedLinear.
        assert capsys.readouterr().out.splitlines() == [
            " FusedAdaptiveAvgPool2d: 1",
            " FusedConvBN: 4",
            " FusedConvBNAddReLU: 16",
            " FusedConvBNReLU: 32",
            " FusedConvBNReLUMaxPool: 1",
            " FusedLinear: 1",
        ]
        assert torch.equal(result.model(example_input), model(example_input))


class TestCustomPatternsGuide:
    """Custom Patterns: three blocks that build on each other, hence one test."""

    def test_depthwise_pattern_list_and_use(self, convnext: nn.Module) -> None:
        # "Writing a custom pattern" -----------------------------------------------------------------------------------
        import torch.nn as nn
        from torch import fx

        from embedl_deploy.patterns import match_tree
        from embedl_deploy.patterns import (
            Pattern,
            PatternMatch,
            Wildcard,
            get_module,
        )
        from embedl_deploy.patterns import replace_tree
        from embedl_deploy.tensorrt.modules import FusedConvBN

        def _is_depthwise_conv(node: fx.Node) -> bool:
            """Return True for a depthwise Conv2d (groups == in_channels > 1)."""
            module = get_module(node)
            return (
                isinstance(module, nn.Conv2d)
                and module.groups > 1
                and module.groups == module.in_channels
            )  # fmt: skip

        class DepthwiseConvBNPattern(Pattern):
            """Match depthwise Conv2d → [BatchNorm2d] without quantization."""

            tree = (_is_depthwise_conv, Wildcard((nn.BatchNorm2d,)))
            qdq_points = frozenset()  # no QDQ stubs

            def match(self, graph_module: fx.GraphModule) -> list[PatternMatch]:
                return match_tree(graph_module, pattern=self)

            def replace(self, pattern_match: PatternMatch) -> list[fx.Node]:
                tree_match = pattern_match.tree_match
                conv = get_module(tree_match.get_node(0))
                wild_nodes = tree_match.get_node(1).nodes
                bn = get_module(wild_nodes[0]) if wild_nodes else None
                return replace_tree(
                    pattern_match,
                    [FusedConvBN(conv, bn, bn_foldable=bn is not None)],
                )

        # "Building a custom pattern list" -----------------------------------------------------------------------------
        from embedl_deploy.tensorrt.patterns import (
            DecomposeMultiheadAttentionPattern,
            FlattenLinearToConv1x1Pattern,
            RemoveIdentityAdaptiveAvgPoolPattern,
        )
        from embedl_deploy.tensorrt.patterns import (
            ConvBNAddReLUPattern,
            ConvBNPattern,
            ConvBNReLUPattern,
            StemConvBNReLUMaxPoolPattern,
        )
        from embedl_deploy.tensorrt.patterns import (
            LayerNormPattern,
            LinearPattern,
            LinearReLUPattern,
        )
        from embedl_deploy.tensorrt.patterns import (
            MHAInProjectionPattern,
            ScaledDotProductAttentionPattern,
        )

        SMART_PATTERNS = [
            # -- Conversions (applied first, iteratively) --
            DecomposeMultiheadAttentionPattern(),
            FlattenLinearToConv1x1Pattern(),
            RemoveIdentityAdaptiveAvgPoolPattern(),
            # -- Fusions (longest first) --
            StemConvBNReLUMaxPoolPattern(),
            ConvBNAddReLUPattern(),
            ConvBNReLUPattern(),
            LinearReLUPattern(),
            DepthwiseConvBNPattern(),  # custom: no QDQ on depthwise
            ConvBNPattern(),
            LinearPattern(),
            LayerNormPattern(),
            MHAInProjectionPattern(),
            ScaledDotProductAttentionPattern(),
            # NOTE: AdaptiveAvgPoolPattern() intentionally omitted
            # → no QDQ stubs around GlobalAveragePooling
        ]

        # "Using the custom pattern list" ------------------------------------------------------------------------------
        my_model = convnext  # the guide: torchvision.models.convnext_tiny(weights="DEFAULT")

        from torch.fx.passes.shape_prop import ShapeProp

        from embedl_deploy.modules import symbolic_trace
        from embedl_deploy import transform
        # The guide's import from embedl_deploy.quantize waits for quantization.

        # Trace and propagate shapes (needed for conversion patterns)
        model = my_model.cpu().eval()
        gm = symbolic_trace(model)
        ShapeProp(gm).propagate(torch.randn(1, 3, 224, 224))

        # Transform with custom patterns
        result = transform(gm, patterns=SMART_PATTERNS)
        fused_model = result.model
        matches = result.matches

        # Verify lossless fusion
        # The guide calls torch.randn twice, a slip: two inputs that differ give outputs that differ. Here they share x.
        x = torch.randn(1, 3, 224, 224)
        with torch.no_grad():
            y_orig = model(x)
            y_fused = fused_model(x)
        max_diff = (y_orig - y_fused).abs().max().item()
        assert max_diff < 1e-4
        # insert_qdq and calibrate wait for quantization.
        # --------------------------------------------------------------------------------------------------------------
        taken = [
            match
            for by_pattern in matches.values()
            for match in by_pattern.values()
            if match.pattern_name == "DepthwiseConvBNPattern" and match.status is MatchStatus.APPLIED
        ]
        assert len(taken) == sum([3, 3, 9, 3])  # one in each block
        for match in taken:
            (name,) = match.replaced_by
            node = next(node for node in fused_model.graph.nodes if node.name == name)
            fused = fused_model.get_submodule(node.target)
            assert isinstance(fused, FusedConvBN) and fused.conv.groups == fused.conv.in_channels > 1
        # "No AdaptiveAvgPoolPattern": the pool is left as it is.
        assert not any(isinstance(module, modules.FusedAdaptiveAvgPool2d) for module in fused_model.modules())
        assert sum(type(module) is nn.AdaptiveAvgPool2d for module in called(fused_model)) == 1
        # What the custom pattern took, ConvBNPattern had to leave.
        rivals = [row["ConvBNPattern"] for row in matches.values() if "ConvBNPattern" in row]
        assert sum(match.reason.startswith("overlaps DepthwiseConvBNPattern") for match in rivals) == len(taken)
