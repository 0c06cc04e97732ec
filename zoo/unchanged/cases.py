"""Twelve models of different kinds, and how each is quantized: between them, every format and every correction."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from embedl_deploy.quantize import CalibrationMethod, Precision, QuantConfig, TensorQuantConfig
from torchvision_import import import_torchvision
from zoo.families import members_of
from zoo.member import Made


@dataclass(frozen=True)
class Case:
    """A model, and what is asked of each stage.

    Attributes:
        name: Of the folder with its outputs.
        make: Makes the model and its inputs.
        config: Formats, exceptions, policy; ``None`` for the hardware's.
        quantize: Other arguments of ``quantize``.
        transform: Other arguments of ``transform``.
        export: Other arguments of ``export_onnx``.
        backend: What it is transformed for.
    """

    name: str
    make: Callable[[], Made]
    config: QuantConfig | None = None
    quantize: Mapping[str, Any] = field(default_factory=dict)
    transform: Mapping[str, Any] = field(default_factory=dict)
    export: Mapping[str, Any] = field(default_factory=dict)
    backend: str = "tensorrt"


def _image(side: int) -> torch.Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))


def _torchvision(name: str, side: int = 64) -> Callable[[], Made]:
    return lambda: Made(import_torchvision().models.get_model(name, weights=None, num_classes=10), (_image(side),))


def _vit() -> Made:
    vit = import_torchvision().models.VisionTransformer
    return Made(vit(32, 8, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=64, num_classes=10), (_image(32),))


def _convnext() -> Made:
    convnext = import_torchvision().models.convnext
    stages = [convnext.CNBlockConfig(*widths, 1) for widths in ((16, 32), (32, 64), (64, None))]
    return Made(convnext.ConvNeXt(stages, num_classes=10), (_image(64),))


def _swin() -> Made:
    swin = import_torchvision().models.SwinTransformer
    return Made(swin([4, 4], 16, [2, 2], [1, 2], [4, 4], num_classes=10), (_image(32),))


def _of_family(family: str, name: str) -> Callable[[], Made]:
    return lambda: members_of(family)[name].make()


class _Recurrent(nn.Module):
    """An LSTM in both directions, a GRU and a head that reads the last step."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(12, 16)
        self.lstm = nn.LSTM(16, 16, num_layers=2, bidirectional=True, batch_first=True)
        self.norm = nn.LayerNorm(32)
        self.gru = nn.GRU(32, 16, batch_first=True)
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, T, 12) to (N, 5)."""
        y, _ = self.lstm(F.gelu(self.project(x)))
        y, _ = self.gru(self.norm(y))
        scores: torch.Tensor = self.head(y[:, -1])
        return scores


class _UNet(nn.Module):
    """Two levels down and up again by transposed convolutions, with concatenated skips."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = self._block(3, 8)
        self.down = self._block(8, 16, stride=2)
        self.deep = self._block(16, 32, stride=2)
        self.up = nn.ConvTranspose2d(32, 16, 2, stride=2)
        self.middle = self._block(32, 16)
        self.out = nn.ConvTranspose2d(16, 8, 4, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Conv2d(16, 4, 1)

    @staticmethod
    def _block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
        conv = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) to (N, 4, H, W), H and W multiples of 4."""
        stem = self.stem(x)
        down = self.down(stem)
        y = self.middle(torch.cat([self.up(self.deep(down)), down], 1))
        y = torch.relu(self.norm(self.out(y)))
        scores: torch.Tensor = self.head(torch.cat([y, stem], 1))
        return scores.sigmoid()


def _recurrent() -> Made:
    return Made(_Recurrent(), (torch.randn(2, 6, 12, generator=torch.Generator().manual_seed(1)),))


def _by(method: CalibrationMethod, **settings: Any) -> QuantConfig:
    return QuantConfig(activation=TensorQuantConfig(calibration_method=method, **settings))


_FP8 = TensorQuantConfig(Precision.FP8)
_FP8_WEIGHT = TensorQuantConfig(Precision.FP8, per_channel=True)
_INT4 = TensorQuantConfig(Precision.INT4, block_size=16)

CASES = [
    Case("resnet18", _torchvision("resnet18"), QuantConfig(policy="mixed"), export={"dynamic_batch": True}),
    Case(
        "mobilenet_v3_small",
        _torchvision("mobilenet_v3_small"),
        _by(CalibrationMethod.PERCENTILE, percentile=99.9),
        {"equalization": True, "bias_correction": True},
    ),
    Case("vit", _vit, QuantConfig(policy="all"), {"smooth_quant": True}, {"trace": "export"}),
    Case("convnext", _convnext, QuantConfig(_FP8, _FP8_WEIGHT)),
    Case("swin", _swin, _by(CalibrationMethod.MSE), {"smooth_quant": 0.5}),
    Case("detr", _of_family("hf", "DetrForObjectDetection"), _by(CalibrationMethod.MOVING_AVERAGE)),
    Case(
        "bert",
        _of_family("hf", "BertModel"),
        QuantConfig(skip={"*pooler*"}),
        {"smooth_quant": True, "learned_rounding": True},
    ),
    Case(
        "llama",
        _of_family("llm", "LlamaForCausalLM"),
        QuantConfig(activation=None, weight=_INT4),
        export={"integer_weights": True},
    ),
    Case("gpt2", _of_family("llm", "GPT2LMHeadModel"), QuantConfig(_FP8, _FP8_WEIGHT, policy="mixed")),
    Case("whisper", _of_family("speech", "Whisper without a cache"), _by(CalibrationMethod.ENTROPY)),
    Case("recurrent", _recurrent, QuantConfig(activation=TensorQuantConfig(symmetric=False))),
    Case(
        "u_net",
        lambda: Made(_UNet(), (_image(32),)),
        None,
        {"equalization": True, "learned_rounding": True},
        export={"integer_weights": True},
    ),
    Case(
        "u_net_in_fixed_point",
        lambda: Made(_UNet(), (_image(32),)),
        backend="sensai",
        quantize={"bias_correction": True},
    ),
]
