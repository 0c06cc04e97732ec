"""The pattern lists, and their order."""

from itertools import combinations

from embedl_deploy import tensorrt
from embedl_deploy.conversions import (
    ClipPoolWindowPattern,
    ComputedWeightPattern,
    DecomposeFoldPattern,
    DecomposeTransformerDecoderLayerPattern,
    DecomposeTransformerEncoderLayerPattern,
    FoldZeroPadIntoConvPattern,
    HoistRankQueryPattern,
    PermuteUnfoldPattern,
    RemoveIdentityPattern,
    UnrollTransformerDecoderPattern,
    UnrollTransformerEncoderPattern,
    UnrollTransformerPattern,
)
from embedl_deploy.patterns import validate_pattern
from embedl_deploy.tensorrt import (
    TENSORRT_CONVERSION_PATTERNS,
    TENSORRT_FUSION_PATTERNS,
    TENSORRT_PATTERNS,
    TENSORRT_QUANTIZED_PATTERNS,
    TENSORRT_SMOOTH_PATTERNS,
    patterns,
)
from embedl_deploy.tensorrt.patterns import (
    ActAddPattern,
    ConvBNAddReLUPattern,
    ConvBNPattern,
    ConvBNReLUPattern,
    ConvertDotProductAttentionPattern,
    DecomposeMultiheadAttentionPattern,
    DecomposeSwinAttentionPattern,
    FlattenLinearToConv1x1Pattern,
    GroupedKeysPattern,
    LinearPattern,
    LinearReLUPattern,
    PermutedLayerNormPattern,
    RecomposeActivationPattern,
    RecomposeAttentionPattern,
    RecomposeBatchNormPattern,
    RecomposeNormPattern,
    RemoveIdentityAdaptiveAvgPoolPattern,
    StemConvBNReLUMaxPoolPattern,
)


def test_the_conversions() -> None:
    assert {type(pattern) for pattern in TENSORRT_CONVERSION_PATTERNS} == {
        ClipPoolWindowPattern,
        ComputedWeightPattern,
        DecomposeFoldPattern,
        PermuteUnfoldPattern,
        FoldZeroPadIntoConvPattern,
        FlattenLinearToConv1x1Pattern,
        RemoveIdentityAdaptiveAvgPoolPattern,
        ConvertDotProductAttentionPattern,
        RecomposeActivationPattern,
        RecomposeAttentionPattern,
        RecomposeNormPattern,
        RecomposeBatchNormPattern,
        GroupedKeysPattern,
        PermutedLayerNormPattern,
        DecomposeMultiheadAttentionPattern,
        DecomposeSwinAttentionPattern,
        HoistRankQueryPattern,
        RemoveIdentityPattern,
        UnrollTransformerEncoderPattern,
        UnrollTransformerDecoderPattern,
        UnrollTransformerPattern,
        DecomposeTransformerEncoderLayerPattern,
        DecomposeTransformerDecoderLayerPattern,
    }
    assert all(pattern.is_conversion for pattern in TENSORRT_CONVERSION_PATTERNS)
    assert not any(pattern.is_conversion for pattern in TENSORRT_FUSION_PATTERNS)


def test_all_is_the_union_in_order() -> None:
    assert [
        *TENSORRT_CONVERSION_PATTERNS,
        *TENSORRT_FUSION_PATTERNS,
        *TENSORRT_QUANTIZED_PATTERNS,
        *TENSORRT_SMOOTH_PATTERNS,
    ] == TENSORRT_PATTERNS


def test_every_pattern_is_in_a_list_once_and_is_well_declared() -> None:
    public = {getattr(patterns, name) for name in patterns.__all__}
    classes = [type(pattern) for pattern in TENSORRT_PATTERNS]
    assert public <= set(classes)
    assert len(classes) == len(set(classes))
    for pattern in TENSORRT_PATTERNS:
        validate_pattern(pattern)


def test_longer_fusions_come_before_shorter_ones() -> None:
    lengths = [pattern.compiled_tree().most_nodes() for pattern in TENSORRT_FUSION_PATTERNS]
    assert lengths == sorted(lengths, reverse=True)


def test_what_would_take_the_nodes_of_another_comes_after_it() -> None:
    order = [type(pattern) for pattern in TENSORRT_FUSION_PATTERNS]
    chains = [
        (StemConvBNReLUMaxPoolPattern, ConvBNReLUPattern, ConvBNPattern),
        (ConvBNAddReLUPattern, ConvBNReLUPattern, ConvBNPattern),
        (LinearReLUPattern, LinearPattern),
        (ConvBNReLUPattern, ActAddPattern),
        (LinearReLUPattern, ActAddPattern),
    ]
    for chain in chains:
        for first, second in combinations(chain, 2):
            assert order.index(first) < order.index(second)


def test_public_names() -> None:
    for module in (tensorrt, patterns, tensorrt.modules):
        assert list(module.__all__) == sorted(module.__all__)
        assert all(hasattr(module, name) for name in module.__all__)
