"""A small model of layers with residual sums, on the meta device and in shards."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from embedl_deploy import TransformationResult, transform
from embedl_deploy.fusions import LayerNormPattern
from support.small_patterns import QUANTIZABLE

PATTERNS = [*QUANTIZABLE, LayerNormPattern()]
WIDTH = 16


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 24), nn.Linear(24, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.down(torch.relu(self.up(self.norm(x))))


class Layered(nn.Module):
    """(N, 5, 12) to (N, 5, 4)."""

    def __init__(self, layers: int = 3) -> None:
        super().__init__()
        self.first = nn.Linear(12, WIDTH)
        self.layers = nn.ModuleList(Layer() for _ in range(layers))
        self.norm, self.last = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        for layer in self.layers:
            x = layer(x)
        return self.last(self.norm(x))


def layered(**settings: Any) -> nn.Module:
    """With outlying channels, which smoothing is for."""
    torch.manual_seed(0)
    model = Layered(**settings).eval()
    with torch.no_grad():
        for i, layer in enumerate(model.layers):
            layer.norm.weight[i] = 40.0
    return model


def batches(count: int = 6, samples: int = 2) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(samples, 5, 12, generator=generator) for _ in range(count)]


def transformed(model: nn.Module, x: torch.Tensor) -> TransformationResult:
    return transform(model, x, patterns=PATTERNS)


def on_meta(x: torch.Tensor, **settings: Any) -> TransformationResult:
    with torch.device("meta"):
        return transformed(Layered(**settings).eval(), x)


def write_shards(model: nn.Module, folder: Path, files: int = 3) -> Path:
    """The weights of a model in several files, with their index."""
    folder.mkdir()
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    names = [f"model-{i + 1:05}-of-{files:05}.safetensors" for i in range(files)]
    weight_map = {name: names[i * files // len(state)] for i, name in enumerate(state)}
    for file in names:
        save_file({name: state[name] for name in state if weight_map[name] == file}, folder / file)
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder
