"""Norms become modules of the backend, whatever spells them."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from embedl_deploy.modules import LayerNorm2d, WrittenRMSNorm
from embedl_deploy.tensorrt.modules import FusedLayerNorm
from embedl_deploy.tensorrt.patterns import LayerNorm2dPattern, LayerNormPattern, RMSNormPattern
from support.agreement import applied, check_rewrite, fused_counts
from support.nets import net, random_input

X = random_input(2, 5, 4)


class TestLayerNorm:
    @pytest.mark.parametrize(
        "norm",
        [nn.LayerNorm(4), nn.LayerNorm((5, 4), eps=1e-3), nn.LayerNorm(4, elementwise_affine=False)],
        ids=["last", "two dimensions", "not affine"],
    )
    def test_matches_modules(self, norm: nn.LayerNorm) -> None:
        result = check_rewrite(net(lambda m, x: m.norm(x), norm=norm), (X,), [LayerNormPattern()])
        assert fused_counts(result.model) == {"FusedLayerNorm": 1}

    def test_matches_functional_spellings(self) -> None:
        model = net(
            lambda m, x: F.layer_norm(x, (4,), m.weight, eps=1e-3) + torch.layer_norm(x, (4,), m.weight, m.bias),
            weight=nn.Parameter(torch.empty(4)),
            bias=nn.Parameter(torch.empty(4)),
        )
        result = check_rewrite(model, (X,), [LayerNormPattern()])
        first, second = (module for module in result.model.modules() if isinstance(module, FusedLayerNorm))
        assert (first.layer_norm.eps, second.layer_norm.eps) == (1e-3, 1e-5)
        assert first.layer_norm.bias is None and first.layer_norm.weight is second.layer_norm.weight

    @pytest.mark.parametrize(
        "norm", [nn.RMSNorm(4), nn.GroupNorm(1, 5), nn.InstanceNorm1d(5)], ids=lambda norm: type(norm).__name__
    )
    def test_other_norms_do_not_match(self, norm: nn.Module) -> None:
        result = check_rewrite(net(lambda m, x: m.norm(x), norm=norm), (X,), [LayerNormPattern()])
        assert applied(result) == []
        assert result.report.why_not("norm") == ["norm: no pattern has an element for it"]


@pytest.mark.parametrize("norm", [nn.RMSNorm(4), nn.RMSNorm((5, 4), 1e-3, False), WrittenRMSNorm((4,), 1e-6)])
def test_rms_norm(norm):
    result = check_rewrite(net(lambda m, x: m.norm(x), norm=norm), (X,), [RMSNormPattern()])
    assert fused_counts(result.model) == {"FusedRMSNorm": 1}


def test_a_call_of_rms_norm():
    model = net(lambda m, x: F.rms_norm(x, (4,), m.weight, 1e-6), weight=nn.Parameter(torch.empty(4)))
    assert fused_counts(check_rewrite(model, (X,), [RMSNormPattern()]).model) == {"FusedRMSNorm": 1}


def test_layer_norm_2d():
    model = net(lambda m, x: m.norm(x), norm=LayerNorm2d(5))
    assert fused_counts(check_rewrite(model, (X,), [LayerNorm2dPattern()]).model) == {"FusedLayerNorm2d": 1}
    assert (
        applied(check_rewrite(net(lambda m, x: m.norm(x), norm=nn.GroupNorm(1, 5)), (X,), [LayerNorm2dPattern()])) == []
    )
