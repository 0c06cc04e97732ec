"""Decoders of torch.nn, and its Transformer, are taken apart into the modules that they are made of."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from embedl_deploy import export_onnx, transform
from embedl_deploy.conversions import (
    DecomposeTransformerDecoderLayerPattern,
    DecomposeTransformerEncoderLayerPattern,
    UnrollTransformerDecoderPattern,
    UnrollTransformerEncoderPattern,
    UnrollTransformerPattern,
)
from embedl_deploy.quantize import quantization_report, quantize
from support.nets import net, random_input, scrambled
from support.transformer_layers import SETTINGS, USUAL, decoder_layer

PATTERNS = [
    UnrollTransformerPattern(),
    UnrollTransformerEncoderPattern(),
    DecomposeTransformerEncoderLayerPattern(),
    UnrollTransformerDecoderPattern(),
    DecomposeTransformerDecoderLayerPattern(),
]
#: (B, S, E): four target tokens, six of memory.
TARGET, MEMORY = random_input(2, 4, 8), random_input(2, 6, 8, seed=2)
CAUSAL = nn.Transformer.generate_square_subsequent_mask(4)
PADDING = torch.tensor([[False] * 6, [False] * 4 + [True] * 2])
MASKS = {
    "tgt_mask": CAUSAL,
    "memory_mask": random_input(4, 6) > 1,
    "tgt_key_padding_mask": PADDING[:, 2:],
    "memory_key_padding_mask": PADDING,
}


def decoder(count=2, norm=None, **settings):
    return scrambled(nn.TransformerDecoder(decoder_layer(**settings), count, norm))


def transformer(**settings):
    return scrambled(nn.Transformer(8, 2, 1, 2, 16, **{**USUAL, **settings}))


def model_of(part, **masks):
    """Calls ``part`` with target and memory, and masks that the model holds."""
    model = net(lambda self, x, y: self.part(x, y, **{name: getattr(self, name) for name in masks}), part=part)
    for name, mask in masks.items():
        model.register_buffer(name, mask)
    return model


def applied(result):
    return [match["pattern"] for match in result.report["applied"]]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("training", [False, True])
def test_the_numbers_stay(settings, training):
    model = model_of(decoder(norm=nn.LayerNorm(8), **settings)).train(training)
    inputs = (TARGET, MEMORY) if "batch_first" not in settings else (TARGET.transpose(0, 1), MEMORY.transpose(0, 1))
    result = transform(model, inputs, patterns=PATTERNS)
    assert applied(result) == ["UnrollTransformerDecoderPattern"] + ["DecomposeTransformerDecoderLayerPattern"] * 2
    assert result.verify(*inputs).max_rel < 1e-5
    assert {name for name, _ in result.model.named_parameters()} == {name for name, _ in model.named_parameters()}
    assert transform(result.model, inputs, patterns=PATTERNS).report["applied_count"] == 0


@pytest.mark.parametrize("name", MASKS)
def test_masks_go_to_every_layer(name):
    model = model_of(decoder(), **{name: MASKS[name]})
    result = transform(model, (TARGET, MEMORY), patterns=PATTERNS)
    assert len(applied(result)) == 3
    assert result.verify(TARGET, MEMORY).max_rel < 1e-5
    unmasked = transform(model_of(decoder()), (TARGET, MEMORY), patterns=PATTERNS)
    assert not torch.allclose(result.model(TARGET, MEMORY), unmasked.model(TARGET, MEMORY))


def test_a_transformer_with_all_masks():
    # Of booleans: given numbers, torch's own fast path returns NaN.
    masks = {"src_mask": random_input(6, 6) > 1.5, **MASKS, "tgt_mask": CAUSAL < 0}
    model = net(lambda self, x, y: self.part(x, y, **masks), part=transformer())
    inputs = (MEMORY, TARGET)
    result = transform(model, inputs, patterns=PATTERNS)
    assert sorted(applied(result)) == sorted([type(p).__name__ for p in PATTERNS] + [type(PATTERNS[-1]).__name__])
    assert result.verify(*inputs).max_rel < 1e-5


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
def test_all_of_it_is_fused_quantized_and_exported(masked, batch_first, tmp_path):
    masks = {"tgt_mask": CAUSAL, "memory_key_padding_mask": PADDING} if masked else {}
    model = model_of(transformer(batch_first=batch_first), **masks)
    inputs = (MEMORY, TARGET) if batch_first else (MEMORY.transpose(0, 1), TARGET.transpose(0, 1))
    result = transform(model, inputs, backend="tensorrt")
    assert applied(result).count("DecomposeMultiheadAttentionPattern") == 5
    assert result.verify(*inputs).max_rel < 1e-5
    quantized = quantize(result, [inputs], progress=False)
    assert quantization_report(quantized).uncovered == ()
    assert export_onnx(quantized, inputs, tmp_path / "transformer.onnx").difference.max_rel < 5e-2


class OwnLayer(nn.TransformerDecoderLayer):
    def forward(self, tgt, memory, **masks):
        return tgt * 2


class OwnEncoder(nn.Module):
    def forward(self, src, mask=None, src_key_padding_mask=None, is_causal=None):
        return src


@pytest.mark.parametrize(
    ("forward", "part", "reason"),
    [
        (
            lambda self, x: self.part(x, x, tgt_mask=CAUSAL, tgt_is_causal=True),
            decoder(1),
            "tgt_is_causal is set",
        ),
        (
            lambda self, x: self.part(x, x, memory_mask=CAUSAL, memory_is_causal=True),
            decoder_layer(),
            "memory_is_causal is set",
        ),
        (
            lambda self, x: self.part(x, x),
            nn.TransformerDecoder(OwnLayer(8, 2, 16, batch_first=True), 1),
            "its layers are not nn.TransformerDecoderLayer",
        ),
        (
            lambda self, x: self.part(x, x),
            decoder_layer(activation=F.silu),
            "its activation, silu, is not a module and neither ReLU nor GELU",
        ),
        (
            lambda self, x: self.part(x, x),
            nn.Transformer(8, 2, custom_encoder=OwnEncoder(), num_decoder_layers=1, batch_first=True),
            "its encoder or decoder is a class of its own",
        ),
    ],
)
def test_what_cannot_be_kept_is_declined(forward, part, reason):
    result = transform(net(forward, part=part), TARGET, patterns=PATTERNS)
    assert [entry["reason"] for entry in result.report["declined"]] == [reason]
    assert result.verify(TARGET).max_rel < 1e-5


@pytest.mark.parametrize("make", [lambda: decoder(1), decoder_layer, transformer])
def test_what_is_watched_is_left(make):
    part = make()
    part.register_forward_hook(lambda module, args, output: None)
    result = transform(model_of(part), (TARGET, MEMORY), patterns=PATTERNS)
    assert [entry["reason"] for entry in result.report["declined"]] == ["hooks on the module would be lost"]
