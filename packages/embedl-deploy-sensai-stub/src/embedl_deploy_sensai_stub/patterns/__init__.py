"""Every pattern of this backend."""

from embedl_deploy_sensai_stub.patterns.avg_pool import AvgPoolToDepthwiseConvPattern
from embedl_deploy_sensai_stub.patterns.conv import ConvBNPattern, ConvBNReLUPattern
from embedl_deploy_sensai_stub.patterns.linear import LinearPattern
from embedl_deploy_sensai_stub.patterns.max_pool import MaxPoolPattern

__all__ = ["AvgPoolToDepthwiseConvPattern", "ConvBNPattern", "ConvBNReLUPattern", "LinearPattern", "MaxPoolPattern"]
