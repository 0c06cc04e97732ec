"""Cross-layer equalization: factors move between weights, and the outputs stay."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from embedl_deploy import transform
from embedl_deploy.graph.edit import deep_copy
from embedl_deploy.modules import Convolution
from embedl_deploy.modules.convolution import rows_of, scaled_rows
from embedl_deploy.quantize import LayerQuantConfig, QuantConfig, TensorQuantConfig, quantization_report, quantize
from embedl_deploy.quantize.accuracy.equalization import equalize
from embedl_deploy.quantize.placing.placement import decide_for
from support.nets import net, random_input, scrambled

X = random_input(2, 3, 12, 12)


def uneven(*parts):
    """The layers, with rows of very different range in each convolution."""
    torch.manual_seed(0)
    model = scrambled(nn.Sequential(*parts)).eval()
    for conv in model:
        if isinstance(conv, Convolution):
            with torch.no_grad():
                conv.weight.copy_(scaled_rows(conv.weight, torch.logspace(-1, 1, conv.out_channels), conv))
    return model


def equalized(model, x=X):
    result = transform(model, (x,), backend="tensorrt")
    changed = deep_copy(result.model)
    plain = LayerQuantConfig(TensorQuantConfig(), TensorQuantConfig(per_channel=True))
    decisions, _ = decide_for(result.model, result.matches, QuantConfig(overrides={nn.ConvTranspose2d: plain}))
    done = equalize(changed, decisions)
    return result.model, changed, {pair.where: pair.told().outcome for pair in done}


CHAINS = {
    "plain": (nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)),
    "batch norm and ReLU": (nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3)),
    "batch norm without parameters": (
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8, affine=False),
        nn.ReLU(),
        nn.Conv2d(8, 4, 1),
    ),
    "depthwise": (nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.ReLU(), nn.Conv2d(8, 4, 1)),
    "groups": (nn.Conv2d(3, 32, 1), nn.ReLU(), nn.Conv2d(32, 16, 3, groups=2, padding=1)),
    "transposed in groups": (nn.ConvTranspose2d(3, 8, 2, 2), nn.ReLU(), nn.ConvTranspose2d(8, 8, 3, groups=2)),
    "leaky": (nn.Conv2d(3, 8, 3), nn.LeakyReLU(0.2), nn.Conv2d(8, 8, 3)),
}


@pytest.mark.parametrize("chain", CHAINS)
def test_outputs_stay_and_ranges_meet(chain):
    before, after, done = equalized(uneven(*CHAINS[chain]))
    assert set(done.values()) == {"equalized"}
    torch.testing.assert_close(after(X), before(X), rtol=1e-4, atol=1e-4 * float(before(X).detach().abs().max()))
    spread = [rows.max() / rows.min() for rows in map(row_ranges, (before, after))]
    assert spread[1] < spread[0]


def row_ranges(model):
    """Largest magnitude of each row of the first folded weight."""
    first = next(iter(model.children()))
    return rows_of(first.folded_weight().detach(), first.conv).abs().flatten(1).amax(1)


@pytest.mark.parametrize(
    ("between", "reason"),
    [(nn.ReLU6(), "ReLU6 does not let factors through"), (nn.Hardswish(), "Hardswish does not let factors through")],
    ids=["ReLU6", "Hardswish"],
)
def test_other_activations_are_declined(between, reason):
    before, after, done = equalized(uneven(nn.Conv2d(3, 8, 3), between, nn.Conv2d(8, 4, 1)))
    assert list(done.values()) == [f"declined: {reason}"]
    assert torch.equal(after(X), before(X))


def test_a_value_that_others_read_is_declined():
    def forward(self, x):
        y = F.relu(self.a(x))
        return self.b(y) + y

    model = net(forward, a=nn.Conv2d(3, 3, 1), b=nn.Conv2d(3, 3, 1)).eval()
    before, after, done = equalized(model)
    assert done == {"a → b": "declined: a_1 feeds 2 users"}
    assert torch.equal(after(X), before(X))


def test_dead_channels_are_left_alone():
    model = uneven(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1))
    with torch.no_grad():
        model[0].weight[2] = 0
        model[2].weight[:, 5] = 0
    before, after, _ = equalized(model)
    assert torch.isfinite(after(X)).all()
    torch.testing.assert_close(after(X), before(X), rtol=1e-4, atol=1e-4)


def test_scales_per_tensor_gain():
    model = uneven(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 1))
    result = transform(model, (X,), backend="tensorrt")
    wanted, config = result.model(X), QuantConfig(weight=TensorQuantConfig())
    errors = []
    for equalization in (False, True):
        quantized = quantize(result, [X], config, equalization=equalization, progress=False)
        errors.append(float((quantized(X) - wanted).detach().square().sum()))
    assert errors[1] < 0.8 * errors[0]
    assert "Equalization: 1 of 1 places" in str(quantization_report(quantized))


def test_a_convolution_that_adds_its_own_input_is_declined():
    """``relu(bn(conv(y)) + y)``: the tensor has one reader, which reads it twice."""
    torch.manual_seed(0)
    stem, conv = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
    model = net(lambda m, x: torch.relu(m.conv(y := m.stem(x)) + y), stem=stem, conv=conv).eval()
    before, after, done = equalized(model)
    assert done == {"stem.0 → conv.0": "declined: conv_2 reads stem_2 2 times"}
    torch.testing.assert_close(after(X), before(X))
