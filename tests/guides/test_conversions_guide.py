"""Graph Conversions: every code block as written; conftest.py says what differs."""
# ruff: noqa: I001  # imports stand where the guide has them

from collections import Counter

import torch
from torch import nn

from embedl_deploy.tensorrt import modules


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

    def test_vision_transformer(self, vit: nn.Module) -> None:
        """No code block: each attention becomes three modules, and the fusions wrap them."""
        from embedl_deploy import transform
        from embedl_deploy.tensorrt import TENSORRT_CONVERSION_PATTERNS, TENSORRT_PATTERNS

        converted = transform(vit, patterns=TENSORRT_CONVERSION_PATTERNS)
        applied = Counter(entry["pattern"] for entry in converted.report["applied"])
        assert applied["DecomposeMultiheadAttentionPattern"] == 2
        kinds = Counter(type(module) for module in converted.model.modules())
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
