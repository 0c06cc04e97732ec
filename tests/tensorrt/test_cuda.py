"""The whole way with the model and its data on a GPU: what comes out equals what the processor computes."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from embedl_deploy import export_onnx, transform, verify_stages
from embedl_deploy.quantize import (
    CalibrationMethod,
    QuantConfig,
    QuantizationRecipe,
    Quantizer,
    TensorQuantConfig,
    freeze,
    quantization_recipe,
    quantize,
)
from support.nets import random_input, scrambled

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.head(torch.relu(x + self.body(x)).mean((2, 3)))


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        self.register_buffer("mask", torch.ones(6, 6).triu(1).bool())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x, src_mask=self.mask)


NETWORKS = {"residual": (Residual, (4, 3, 16, 16)), "attending": (Attending, (4, 6, 16))}
TRACES = ["symbolic", "export"]


@pytest.fixture(autouse=True)
def exact_products() -> Iterator[None]:
    """Without the short mantissas of TF32."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@pytest.fixture(params=NETWORKS)
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, torch.Tensor]:
    make, shape = NETWORKS[request.param]
    return scrambled(make()).eval(), random_input(*shape)


def on_gpu(case: tuple[nn.Module, torch.Tensor], trace: str = "symbolic"):
    model, x = case
    model, x = model.cuda(), x.cuda()
    return transform(model, x, backend="tensorrt", trace=trace), x


def scales(model: nn.Module) -> dict[str, torch.Tensor]:
    return {path: part.scale for path, part in model.named_modules() if isinstance(part, Quantizer)}


def tensors(model: nn.Module) -> list[torch.Tensor]:
    return [*model.parameters(), *model.buffers()]


@pytest.mark.parametrize("trace", TRACES)
def test_transform_stays_on_the_gpu(case, trace):
    state = torch.cuda.get_rng_state()
    result, x = on_gpu(case, trace)
    assert all(tensor.is_cuda for tensor in tensors(result.model))
    assert result.verify(x).max_rel < 1e-4
    assert torch.equal(state, torch.cuda.get_rng_state())


@pytest.mark.parametrize("trace", TRACES)
@pytest.mark.parametrize(
    "options",
    [{}, {"equalization": True}, {"smooth_quant": True}, {"bias_correction": True}, {"learned_rounding": True}],
)
def test_scales_are_those_of_the_processor(case, trace, options):
    model, x = case
    wanted = scales(quantize(transform(model, x, backend="tensorrt", trace=trace), [x], progress=False, **options))
    result, x = on_gpu(case, trace)
    quantized = quantize(result, [x], progress=False, **options)
    found = scales(quantized)
    assert wanted.keys() == found.keys()
    for path, scale in found.items():
        assert scale.is_cuda
        torch.testing.assert_close(scale.cpu(), wanted[path], rtol=1e-3, atol=1e-7, msg=lambda m, p=path: f"{p}: {m}")
    assert all(tensor.is_cuda for tensor in tensors(quantized))


@pytest.mark.parametrize("method", list(CalibrationMethod))
def test_methods(case, method):
    config = QuantConfig(activation=TensorQuantConfig(calibration_method=method))
    model, x = case
    wanted = scales(quantize(transform(model, x, backend="tensorrt"), [x], config, progress=False))
    result, x = on_gpu(case)
    for path, scale in scales(quantize(result, [x], config, progress=False)).items():
        torch.testing.assert_close(scale.cpu(), wanted[path], rtol=2e-2, atol=1e-7, msg=lambda m, p=path: f"{p}: {m}")


def test_freeze_and_recipe(case):
    result, x = on_gpu(case)
    frozen = freeze(quantize(result, [x], progress=False))
    assert all(tensor.is_cuda for tensor in tensors(frozen))
    restored = QuantizationRecipe.from_json(quantization_recipe(frozen).to_json()).rebuild(result)
    restored.load_state_dict(frozen.state_dict())
    with torch.no_grad():
        assert torch.equal(restored(x), frozen(x))


def test_training(case):
    result, x = on_gpu(case)
    config = QuantConfig(
        activation=TensorQuantConfig(learnable=True), weight=TensorQuantConfig(per_channel=True, learnable=True)
    )
    model = quantize(result, [x], config, progress=False).train()
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    model(x).square().mean().backward()
    optimizer.step()
    moved = [name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])]
    assert any(name.endswith("scale") for name in moved)
    assert all(bool(parameter.isfinite().all()) for parameter in model.parameters())


@pytest.mark.parametrize("trace", TRACES)
@pytest.mark.parametrize("dtype", [None, torch.float16])
def test_files(case, trace, dtype, tmp_path: Path):
    result, x = on_gpu(case, trace)
    export_onnx(result.model, x, path=tmp_path / "float.onnx", dtype=dtype if trace == "symbolic" else None)
    quantized = quantize(result, [x], progress=False)
    export_onnx(quantized, x, path=tmp_path / "int8.onnx", dtype=dtype if trace == "symbolic" else None)
    assert quantized(x).is_cuda


def test_every_stage(case):
    result, x = on_gpu(case)
    quantized = quantize(result, [x], progress=False)
    verification = verify_stages(case[0], x, {"transformed": result, "quantized": quantized})
    assert [stage.name for stage in verification.stages] == ["transformed", "quantized"]


def test_data_of_the_processor_is_moved(case):
    result, x = on_gpu(case)
    wanted = scales(quantize(result, [x], progress=False))
    for path, scale in scales(quantize(result, [x.cpu()], progress=False)).items():
        assert torch.equal(scale, wanted[path])
