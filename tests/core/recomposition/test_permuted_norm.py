"""A LayerNorm between permutations is one over channels."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from embedl_deploy import transform
from embedl_deploy.modules import LayerNorm2d
from embedl_deploy.recomposition import PermutedLayerNormPattern
from support.agreement import applied, check_rewrite, reasons
from support.nets import net, random_input

PATTERN = PermutedLayerNormPattern()
MAPS = random_input(2, 6, 4, 3)
SPELLINGS = {
    "permute": (lambda m, x: m.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), MAPS),
    "negative": (lambda m, x: torch.permute(m.norm(torch.permute(x, (0, 2, 3, -3))), (0, -1, 1, 2)), MAPS),
    "a function": (
        lambda m, x: F.layer_norm(x.permute(0, 2, 3, 1), (6,), m.norm.weight, m.norm.bias, 1e-5).permute(0, 3, 1, 2),
        MAPS,
    ),
    "a sequence": (lambda m, x: m.norm(x.transpose(1, 2)).transpose(2, 1), random_input(2, 6, 4)),
}


@pytest.mark.parametrize("trace", ["symbolic", "export"])
@pytest.mark.parametrize("name", SPELLINGS)
def test_it_is_the_same_to_twelve_digits(name, trace):
    function, x = SPELLINGS[name]
    model, x = net(function, norm=nn.LayerNorm(6)).double(), x.double()
    result = transform(model, x, patterns=[PATTERN], trace=trace, strict=True)
    assert [type(module) for module in result.model.modules() if isinstance(module, LayerNorm2d)] == [LayerNorm2d]
    torch.testing.assert_close(result.model(x), model(x), rtol=1e-12, atol=1e-12)


def test_training_and_a_second_run():
    for norm in (nn.LayerNorm(6), nn.LayerNorm(6, bias=False)):
        check_rewrite(net(SPELLINGS["permute"][0], norm=norm), (MAPS,), [PATTERN])


def test_in_float16_it_is_computed_in_float32():
    model = net(SPELLINGS["permute"][0], norm=nn.LayerNorm(6)).half()
    result = transform(model, (MAPS * 100).half(), patterns=[PATTERN])
    torch.testing.assert_close(result.model((MAPS * 1000).half()), model((MAPS * 1000).half()), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize(
    ("function", "norm"),
    [
        (lambda m, x: m.norm(x.permute(0, 3, 2, 1)).permute(0, 3, 2, 1), nn.LayerNorm(6)),
        (lambda m, x: m.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 2, 1), nn.LayerNorm(6)),
        (lambda m, x: m.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), nn.RMSNorm(6)),
        (lambda m, x: m.norm(x.permute(0, 2, 3, 1)), nn.LayerNorm(6)),
    ],
)
def test_others_stay(function, norm):
    assert applied(check_rewrite(net(function, norm=norm), (MAPS,), [PATTERN])) == []


def test_it_says_why_not():
    def twice(m, x):
        y = m.norm(x.permute(0, 2, 3, 1))
        return y.permute(0, 3, 1, 2) + y.sum()

    (reason,) = reasons(transform(net(twice, norm=nn.LayerNorm(6)), MAPS, patterns=[PATTERN]))
    assert "norm feeds 2 users" in reason
    wide = net(SPELLINGS["permute"][0], norm=nn.LayerNorm((3, 6)))
    (reason,) = reasons(transform(wide, MAPS, patterns=[PATTERN]))
    assert reason.endswith("it is over the axes (3, 6)")
    hooked = net(SPELLINGS["permute"][0], norm=nn.LayerNorm(6))
    hooked.norm.register_forward_hook(lambda *_: None)
    (reason,) = reasons(transform(hooked, MAPS, patterns=[PATTERN]))
    assert "hooks on norm would be lost" in reason
