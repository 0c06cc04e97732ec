"""Encoders of torch.nn are taken apart into the modules that they are made of."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from embedl_deploy import export_onnx, transform
from embedl_deploy.conversions import DecomposeTransformerEncoderLayerPattern, UnrollTransformerEncoderPattern
from embedl_deploy.quantize import quantization_report, quantize
from support.nets import net, random_input, scrambled
from support.transformer_layers import SETTINGS, encoder_layer

PATTERNS = [UnrollTransformerEncoderPattern(), DecomposeTransformerEncoderLayerPattern()]
TOKENS = random_input(2, 5, 8)
PADDING = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
CAUSAL = nn.Transformer.generate_square_subsequent_mask(5)


def encoder(count=2, norm=None, **settings):
    return scrambled(nn.TransformerEncoder(encoder_layer(**settings), count, norm, enable_nested_tensor=False))


def applied(result):
    return [match["pattern"] for match in result.report["applied"]]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("training", [False, True])
def test_the_numbers_stay(settings, training):
    model = net(lambda self, x: self.encoder(x), encoder=encoder(norm=nn.LayerNorm(8), **settings)).train(training)
    result = transform(model, TOKENS, patterns=PATTERNS)
    assert applied(result) == [type(PATTERNS[0]).__name__] + [type(PATTERNS[1]).__name__] * 2
    assert result.verify(TOKENS).max_rel < 1e-5
    assert {name for name, _ in result.model.named_parameters()} == {name for name, _ in model.named_parameters()}
    assert transform(result.model, TOKENS, patterns=PATTERNS).report["applied_count"] == 0


@pytest.mark.parametrize("masks", [{"src_key_padding_mask": PADDING}, {"mask": CAUSAL}])
def test_masks_go_to_every_layer(masks):
    name = next(iter(masks))

    def forward(self, x, mask):
        return self.encoder(x, **{name: mask})

    model = net(forward, encoder=encoder())
    result = transform(model, (TOKENS, masks[name]), patterns=PATTERNS)
    assert len(applied(result)) == 3
    assert result.verify(TOKENS, masks[name]).max_rel < 1e-5
    unmasked = torch.full_like(CAUSAL, 0.0) if name == "mask" else torch.zeros_like(PADDING)
    assert not torch.allclose(result.model(TOKENS, masks[name]), result.model(TOKENS, unmasked))


def test_a_layer_that_is_called_twice_keeps_one_set_of_weights():
    model = net(lambda self, x: self.layer(self.layer(x)), layer=scrambled(encoder_layer()))
    result = transform(model, TOKENS, patterns=PATTERNS)
    assert len(applied(result)) == 2
    assert result.verify(TOKENS).max_rel < 1e-5
    assert sum(p.numel() for p in result.model.parameters()) == sum(p.numel() for p in model.parameters())


@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
def test_a_padding_mask_where_torch_never_packs_sequences():
    part = scrambled(nn.TransformerEncoder(encoder_layer(batch_first=False), 2))  # of torch's defaults
    model = net(lambda self, x, padding: self.encoder(x, src_key_padding_mask=padding), encoder=part)
    inputs = (TOKENS.transpose(0, 1), PADDING)
    result = transform(model, inputs, patterns=PATTERNS)
    assert len(applied(result)) == 3 and result.verify(*inputs).max_rel < 1e-5


@pytest.mark.parametrize("masks", [{}, {"src_key_padding_mask": PADDING}, {"mask": CAUSAL}], ids=str)
@pytest.mark.parametrize("batch_first", [True, False])
def test_all_of_it_is_fused_quantized_and_exported(masks, batch_first, tmp_path):
    name = next(iter(masks), None)

    def masked(self, x, mask):
        return self.encoder(x, **{name: mask})

    forward = masked if masks else lambda self, x: self.encoder(x)
    model = net(forward, encoder=encoder(norm=nn.LayerNorm(8), batch_first=batch_first))
    inputs = (TOKENS if batch_first else TOKENS.transpose(0, 1), *masks.values())
    result = transform(model, inputs, backend="tensorrt")
    assert applied(result).count("DecomposeMultiheadAttentionPattern") == 2
    assert result.verify(*inputs).max_rel < 1e-5
    quantized = quantize(result, [inputs], progress=False)
    assert quantization_report(quantized).uncovered == ()
    assert export_onnx(quantized, inputs, tmp_path / "encoder.onnx").difference.max_rel < 5e-2


def why(model, *args):
    result = transform(model, args, patterns=PATTERNS)
    return [entry["reason"] for entry in result.report["declined"]]


class OwnLayer(nn.TransformerEncoderLayer):
    def forward(self, src, src_mask=None, src_key_padding_mask=None, is_causal=False):
        return src * 2


@pytest.mark.parametrize(
    ("forward", "part", "reason"),
    [
        (
            lambda self, x: self.part(x, src_key_padding_mask=PADDING),
            nn.TransformerEncoder(encoder_layer(), 1),
            "with a padding mask its result depends on the mode: build it with enable_nested_tensor=False",
        ),
        (lambda self, x: self.part(x, mask=CAUSAL, is_causal=True), encoder(1), "is_causal is set"),
        (lambda self, x: self.part(x, src_mask=CAUSAL, is_causal=True), encoder_layer(), "is_causal is set"),
        (
            lambda self, x: self.part(x),
            nn.TransformerEncoder(OwnLayer(8, 2, 16, batch_first=True), 1, enable_nested_tensor=False),
            "its layers are not nn.TransformerEncoderLayer",
        ),
        (
            lambda self, x: self.part(x),
            encoder_layer(activation=F.silu),
            "its activation, silu, is not a module and neither ReLU nor GELU",
        ),
    ],
)
def test_what_cannot_be_kept_is_declined(forward, part, reason):
    assert why(net(forward, part=part), TOKENS) == [reason]


@pytest.mark.parametrize("make", [lambda: encoder(1), encoder_layer])
def test_what_is_watched_is_left(make):
    part = make()
    part.register_forward_hook(lambda module, args, output: None)
    assert why(net(lambda self, x: self.part(x), part=part), TOKENS) == ["hooks on the module would be lost"]
