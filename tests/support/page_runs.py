"""Whole runs of networks in INT8, from the model to the engine, for pages."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from embedl_deploy import check, compile, export_onnx, transform  # noqa: A004 - the user's word for it
from embedl_deploy.engine import compare
from embedl_deploy.float16 import float32_report, keep_in_float32
from embedl_deploy.quantize import QuantConfig, quantization_report, quantize
from embedl_deploy.sensitivity import sensitivity
from torchvision_import import import_torchvision


def _of_torchvision(name: str) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    model: nn.Module = getattr(import_torchvision().models, name)(weights=None)
    return model, (torch.randn(1, 3, 224, 224),)


def _bert() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 128}
    ids = torch.randint(0, 100, (1, 32))
    return BertModel(BertConfig(vocab_size=100, **sizes), add_pooling_layer=False), (ids, torch.ones_like(ids))


#: Networks with example inputs: convolutions, windows of attention, and a model that torch.export captures.
NETWORKS: dict[str, Callable[[], tuple[nn.Module, tuple[torch.Tensor, ...]]]] = {
    "resnet18": lambda: _of_torchvision("resnet18"),
    "swin_t": lambda: _of_torchvision("swin_t"),
    "bert": _bert,
}


def run_of(name: str, folder: Path) -> dict[str, Any]:
    """All parts of a page about a network.

    Args:
        name: One of :data:`NETWORKS`.
        folder: For files and engines.
    """
    torch.manual_seed(0)
    model, x = NETWORKS[name]()
    result = transform(model.eval(), x, backend="tensorrt")
    quantized = quantize(result, [x], QuantConfig(policy="mixed"), progress=False)
    kept = keep_in_float32(result, [x])
    paths = [folder / f"{name}_{kind}.onnx" for kind in ("fp16", "int8")]
    for each, path in zip((kept, quantized), paths, strict=True):
        export_onnx(each, x, path, dtype=torch.float16)
    engines = [compile(path, backend="tensorrt", target="sm89", progress=False).report for path in paths]
    return {
        "transformation": result,
        "quantization": quantization_report(quantized),
        "sensitivity": sensitivity(quantized, [x]),
        "engine": engines[1],
        "comparison": compare(engines[0], engines[1]),
        "check": check(paths[1], backend="tensorrt"),
        "float32": float32_report(kept),
    }
