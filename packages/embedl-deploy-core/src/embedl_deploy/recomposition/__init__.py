"""Conversions that find layers written out in small operations, and replace them with one module.

Conversions for any hardware; a backend lists those that it wants.
"""

from embedl_deploy.recomposition.activation import RecomposeActivationPattern
from embedl_deploy.recomposition.activation_product import ActivationProductPattern
from embedl_deploy.recomposition.attention import RecomposeAttentionPattern
from embedl_deploy.recomposition.batch_norm import RecomposeBatchNormPattern
from embedl_deploy.recomposition.dot_product_attention import ConvertDotProductAttentionPattern
from embedl_deploy.recomposition.grouped_keys import GroupedKeysPattern
from embedl_deploy.recomposition.norms import RecomposeNormPattern
from embedl_deploy.recomposition.permuted_norm import PermutedLayerNormPattern

__all__ = [
    "ActivationProductPattern",
    "ConvertDotProductAttentionPattern",
    "GroupedKeysPattern",
    "PermutedLayerNormPattern",
    "RecomposeActivationPattern",
    "RecomposeAttentionPattern",
    "RecomposeBatchNormPattern",
    "RecomposeNormPattern",
]
