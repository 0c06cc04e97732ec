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
