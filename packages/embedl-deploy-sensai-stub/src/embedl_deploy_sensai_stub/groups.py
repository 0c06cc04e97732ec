"""The pattern lists of the backend. Their order is the order of priority."""

from embedl_deploy.conversions import FoldZeroPadIntoConvPattern
from embedl_deploy.patterns import Pattern
from embedl_deploy_sensai_stub.patterns import (
    AddPattern,
    AvgPoolToDepthwiseConvPattern,
    AvgPoolToGlobalPoolPattern,
    BatchNormToDepthwiseConvPattern,
    ConvBNPattern,
    ConvBNReLUPattern,
    GlobalAveragePoolPattern,
    LinearPattern,
    MaxPoolPattern,
    MeanToGlobalPoolPattern,
)

#: Structural rewrites, run to a fixed point before any fusion.
SENSAI_CONVERSION_PATTERNS: list[Pattern] = [
    AvgPoolToDepthwiseConvPattern(),  # right for maps of any size, so before the next
    AvgPoolToGlobalPoolPattern(),  # windows that are as large as the map
    MeanToGlobalPoolPattern(),
    FoldZeroPadIntoConvPattern(),  # into the convolutions that pooling has become, too
    BatchNormToDepthwiseConvPattern(),  # what no convolution comes before, once all convolutions are there
]

#: Fusions, run once: the first that takes a node has it, so the longer ones come first.
SENSAI_FUSION_PATTERNS: list[Pattern] = [
    ConvBNReLUPattern(),  # up to 3 nodes
    ConvBNPattern(),  # up to 2 nodes: what the pattern above has left
    LinearPattern(),  # up to 2 nodes; takes nothing that the others want
    AddPattern(),  # up to 2 nodes; a ReLU after a convolution or linear layer is theirs already
    MaxPoolPattern(),  # 1 node
    GlobalAveragePoolPattern(),  # 1 node
]

#: All of the above.
SENSAI_PATTERNS: list[Pattern] = [*SENSAI_CONVERSION_PATTERNS, *SENSAI_FUSION_PATTERNS]
