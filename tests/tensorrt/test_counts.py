"""How many fused modules of each type torchvision's classifiers become, worked out from their architectures.

Every function below counts from what the paper or torchvision's configuration says: blocks per stage and what a block
is made of. In all of them the classifier behind a global pool becomes a 1×1 convolution, that is one more FusedConvBN.
"""

from collections.abc import Callable

import pytest

from zoo.classifiers import check_model

Counts = dict[str, int]


def resnet50() -> Counts:
    """He et al. 2015, table 1: bottleneck blocks of 1×1, 3×3, 1×1, the last with the residual; a 7×7 stem."""
    blocks = sum([3, 4, 6, 3])
    downsamples = 4  # the first block of each stage changes the number of channels
    return {
        "FusedConvBNReLUMaxPool": 1,
        "FusedConvBNReLU": 2 * blocks,
        "FusedConvBNAddReLU": blocks,
        "FusedConvBN": downsamples + 1,
        "FusedAdaptiveAvgPool2d": 1,
    }


def vit_b_16() -> Counts:
    """Dosovitskiy et al. 2020: 12 encoder blocks of norm, attention, norm, Linear → GELU → Linear; a final norm.

    The head works on the class token, not on a 1×1 map, so it stays a matrix product.
    """
    layers = 12
    return {
        "FusedConvBN": 1,  # the patch embedding
        "FusedMHAInProjection": layers,
        "FusedScaledDotProductAttention": layers,
        "FusedLinearReLU": layers,
        "FusedLinear": layers + layers + 1,  # output projections, second of each MLP, head
        "FusedLayerNorm": 2 * layers + 1,
    }


def convnext_tiny() -> Counts:
    """Liu et al. 2022: blocks of a depthwise 7×7, norm, Linear → GELU → Linear.

    LayerNorm2d (stem, three downsamplings, before the head) is torchvision's own subclass, which permutes; it is traced
    through, and a conversion takes the permutations with the ``F.layer_norm`` between them.
    """
    depths = [3, 3, 9, 3]
    blocks, downsamplings = sum(depths), len(depths) - 1
    stem = 1
    layer_norm_2d = stem + downsamplings + 1
    return {
        "FusedConvBN": blocks + stem + downsamplings + 1,
        "FusedLayerNorm": blocks,
        "FusedLayerNorm2d": layer_norm_2d,
        "FusedLinearReLU": blocks,
        "FusedLinear": blocks,
        "FusedAdaptiveAvgPool2d": 1,
    }


def swin_t() -> Counts:
    """Liu et al. 2021: blocks of norm, attention, norm, Linear → GELU → Linear; patch merging is norm, Linear."""
    depths = [2, 2, 6, 2]
    blocks, merges = sum(depths), len(depths) - 1
    return {
        "FusedConvBN": 1 + 1,  # patch embedding, head
        "FusedMHAInProjection": blocks,
        "FusedSwinAttention": blocks,
        "FusedLinearReLU": blocks,
        "FusedLinear": blocks + blocks + merges,  # output projections, second of each MLP, merges
        "FusedSwinNormPartition": blocks,  # the norm before each attention
        "FusedLayerNorm": blocks + merges + 1 + 1,  # before each MLP, after the embedding, and before the head
        "FusedAdaptiveAvgPool2d": 1,
    }


def swin_v2_t() -> Counts:
    """Liu et al. 2022: as V1, and in each block a network Linear → ReLU → Linear that makes the position bias."""
    counts = swin_t()
    blocks = sum([2, 2, 6, 2])
    counts["FusedLinearReLU"] += blocks
    counts["FusedLinear"] += blocks
    counts["FusedLayerNorm"] += counts.pop("FusedSwinNormPartition")  # norms come after attention and MLP
    return counts


def efficientnet_b0() -> Counts:
    """Tan and Le 2019, table 1: inverted bottlenecks of expansion, depthwise, squeeze-excitation, projection.

    Squeeze-excitation is a pool, a convolution with SiLU and one before a sigmoid, which is no epilogue.
    """
    expansions_and_layers = [(1, 1), (6, 2), (6, 2), (6, 3), (6, 3), (6, 4), (6, 1)]
    blocks = sum(layers for _, layers in expansions_and_layers)
    expanded = sum(layers for expansion, layers in expansions_and_layers if expansion != 1)
    stem_and_last = 2
    return {
        "FusedConvBNReLU": stem_and_last + expanded + blocks + blocks,  # expansion, depthwise, squeeze
        "FusedConvBN": blocks + blocks + 1,  # excitation, projection, classifier
        "FusedAdaptiveAvgPool2d": blocks + 1,
    }


def mobilenet_v3_large() -> Counts:
    """Howard et al. 2019, table 1: as above, with excitation by a hard sigmoid, which is an epilogue.

    Both linear layers of the classifier become convolutions: the flatten moves behind one, and then behind the other.
    """
    input_expanded_squeezed = [
        (16, 16, False),
        (16, 64, False),
        (24, 72, False),
        (24, 72, True),
        (40, 120, True),
        (40, 120, True),
        (40, 240, False),
        (80, 200, False),
        (80, 184, False),
        (80, 184, False),
        (80, 480, True),
        (112, 672, True),
        (112, 672, True),
        (160, 960, True),
        (160, 960, True),
    ]
    blocks = len(input_expanded_squeezed)
    expanded = sum(channels != wide for channels, wide, _ in input_expanded_squeezed)
    squeezed = sum(squeeze for _, _, squeeze in input_expanded_squeezed)
    stem_last_and_first_of_classifier = 3
    return {
        "FusedConvBNReLU": stem_last_and_first_of_classifier + expanded + blocks + 2 * squeezed,
        "FusedConvBN": blocks + 1,
        "FusedAdaptiveAvgPool2d": squeezed + 1,
    }


def densenet121() -> Counts:
    """Huang et al. 2017, table 1: layers of BN, ReLU, 1×1, BN, ReLU, 3×3; transitions of BN, ReLU, 1×1.

    Batch norm comes before the convolution. That after a 1×1 and its ReLU are an epilogue; those after a concatenation
    are not, and neither the 3×3 nor a transition's convolution is followed by one.
    """
    depths = [6, 12, 24, 16]
    layers, transitions = sum(depths), len(depths) - 1
    return {
        "FusedConvBNReLUMaxPool": 1,
        "FusedConvBNReLU": layers,
        "FusedConvBN": layers + transitions + 1,
        "FusedAdaptiveAvgPool2d": 1,
    }


def regnet_y_400mf() -> Counts:
    """Radosavovic et al. 2020: blocks of 1×1, grouped 3×3, squeeze-excitation, 1×1 with the residual."""
    depths = [1, 3, 6, 6]
    blocks, projections = sum(depths), len(depths)  # the first block of each stage projects its shortcut
    stem = 1
    return {
        "FusedConvBNReLU": stem + 3 * blocks,  # 1×1, 3×3, squeeze
        "FusedConvBNAddReLU": blocks,
        "FusedConvBN": blocks + projections + 1,  # excitation, shortcuts, classifier
        "FusedAdaptiveAvgPool2d": blocks + 1,
    }


#: facts.md, section 1, where it gives numbers; a slip in the arithmetic above would show here.
WRITTEN_DOWN = {
    "resnet50": {
        "FusedConvBNReLUMaxPool": 1,
        "FusedConvBNAddReLU": 16,
        "FusedConvBNReLU": 32,
        "FusedConvBN": 5,
        "FusedAdaptiveAvgPool2d": 1,
    },
    "vit_b_16": {
        "FusedConvBN": 1,
        "FusedMHAInProjection": 12,
        "FusedScaledDotProductAttention": 12,
        "FusedLinear": 25,
        "FusedLinearReLU": 12,
        "FusedLayerNorm": 25,
    },
    "convnext_tiny": {
        "FusedConvBN": 18 + 4 + 1,
        "FusedLinearReLU": 18,
        "FusedLinear": 18,
        "FusedLayerNorm": 18,
        "FusedLayerNorm2d": 5,
        "FusedAdaptiveAvgPool2d": 1,
    },
}

ARCHITECTURES = (
    resnet50,
    vit_b_16,
    convnext_tiny,
    swin_t,
    swin_v2_t,
    efficientnet_b0,
    mobilenet_v3_large,
    densenet121,
    regnet_y_400mf,
)


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda architecture: architecture.__name__)
def test_counts_and_numbers(architecture: Callable[[], Counts]) -> None:
    result = check_model(architecture.__name__)
    assert result.fused == architecture()
    assert result.failed == 0
    assert result.largest_output > 1e-3
    assert result.difference.max_rel <= 1e-5


@pytest.mark.parametrize("name", WRITTEN_DOWN)
def test_the_arithmetic_gives_the_numbers_that_are_written_down(name: str) -> None:
    (architecture,) = (function for function in ARCHITECTURES if function.__name__ == name)
    assert architecture() == WRITTEN_DOWN[name]
