"""Custom Patterns: every code block as written; conftest.py says what differs. Images are 64×64, for speed."""
# ruff: noqa: I001  # imports stand where the guide has them

from collections import Counter
from pathlib import Path

import onnx
import torch
from torch import nn

from embedl_deploy import export_onnx
from embedl_deploy.patterns import MatchStatus
from embedl_deploy.quantize import Quantizer, quantization_report
from embedl_deploy.tensorrt import modules


class TestCustomPatternsGuide:
    """Three blocks that build on each other, and training and export after them, hence one test."""

    def test_depthwise_pattern_list_and_use(self, convnext: nn.Module, tmp_path: Path) -> None:
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
        from embedl_deploy.quantize import (
            QuantConfig,
            TensorQuantConfig,
            insert_qdq,
            calibrate,
        )

        # Trace and propagate shapes (needed for conversion patterns)
        model = my_model.cpu().eval()
        gm = symbolic_trace(model)
        ShapeProp(gm).propagate(torch.randn(1, 3, 64, 64))

        # Transform with custom patterns
        result = transform(gm, patterns=SMART_PATTERNS)
        fused_model = result.model
        matches = result.matches

        # Verify lossless fusion
        # The guide calls torch.randn twice, a slip: two inputs that differ give outputs that differ. Here they share x.
        x = torch.randn(1, 3, 64, 64)
        with torch.no_grad():
            y_orig = model(x)
            y_fused = fused_model(x)
        max_diff = (y_orig - y_fused).abs().max().item()
        assert max_diff < 1e-4

        calibration_batches = [torch.randn(1, 3, 64, 64) for _ in range(2)]  # the guide has the user's

        # Insert QDQ and calibrate
        quantized = insert_qdq(
            fused_model, matches,
            config=QuantConfig(
                activation=TensorQuantConfig(n_bits=8, symmetric=True),
                weight=TensorQuantConfig(n_bits=8, symmetric=True, per_channel=True),
                skip_weight_quant_for=(nn.LayerNorm,),
            ),
        )  # fmt: skip

        def forward_loop(model):
            for batch in calibration_batches[:32]:
                model(batch)

        calibrate(quantized, forward_loop)
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
        assert sum(type(module) is nn.AdaptiveAvgPool2d for module in fused_model.modules()) == 1
        # What the custom pattern took, ConvBNPattern had to leave.
        rivals = [row["ConvBNPattern"] for row in matches.values() if "ConvBNPattern" in row]
        assert sum(match.reason.startswith("overlaps DepthwiseConvBNPattern") for match in rivals) == len(taken)

        # "insert_qdq will not place any quantization stubs around matched depthwise convolutions", nor around the pool
        # and the layer norms: input and weight of 4 + 1 other convolutions and 2 products in each block are quantized.
        points = quantization_report(quantized).points
        places = Counter((point.module, point.label) for point in points)
        assert places == {
            ("FusedConvBN", "input 0"): 4 + 1,
            ("FusedConvBN", "weight"): 4 + 1,
            ("FusedLinearReLU", "input 0"): 18,
            ("FusedLinearReLU", "weight"): 18,
            ("FusedLinear", "input 0"): 18,
            ("FusedLinear", "weight"): 18,
        }
        assert not {point.node for point in points} & {name for match in taken for name in match.replaced_by}
        assert all(point.quantized for point in points)
        # Calibrated: symmetric scales, and outputs near those of the float model.
        quantizers = [module for module in quantized.modules() if isinstance(module, Quantizer)]
        assert all(q.zero_point is None and bool((q.scale.isfinite() & (q.scale > 0)).all()) for q in quantizers)
        images, labels = torch.cat(calibration_batches), torch.tensor([1, 2])
        with torch.no_grad():
            exact = model(images)
            assert 0 < (quantized(images) - exact).norm() < 0.1 * exact.norm()
        # The first guide: "optionally run Quantization-Aware Training (QAT). The result is an ONNX-exportable model".
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        nn.functional.cross_entropy(quantized.train()(images), labels).backward()
        parameters = list(quantized.parameters())
        assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in parameters)
        torch.optim.SGD(parameters, lr=1e-3).step()
        assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())  # the user's own
        export_onnx(quantized, images, tmp_path / "smart.onnx", integer_weights=True)
        graph = onnx.load(tmp_path / "smart.onnx").graph
        made_by = {name: node.op_type for node in graph.node for name in node.output}
        inputs = Counter(
            (node.op_type, groups_of(node) > 1, made_by.get(next(iter(node.input), ""))) for node in graph.node
        )
        assert inputs["Conv", False, "DequantizeLinear"] == 4 + 1
        assert inputs["MatMul", False, "DequantizeLinear"] + inputs["Gemm", False, "DequantizeLinear"] == 2 * 18
        depthwise = {source: count for (kind, grouped, source), count in inputs.items() if kind == "Conv" and grouped}
        assert sum(depthwise.values()) == 18 and "DequantizeLinear" not in depthwise
        assert sum(inputs[kind, False, "DequantizeLinear"] for kind in ("LayerNormalization", "ReduceMean")) == 0


def groups_of(node: onnx.NodeProto) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
