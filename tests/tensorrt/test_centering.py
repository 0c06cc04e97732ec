"""Centering: what is centered and what is not, and what files of centered models compute."""

import re

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from embedl_deploy import check, export_onnx, transform
from embedl_deploy.errors import ExportError, QuantizationConfigError
from embedl_deploy.float16 import float32_report, keep_in_float32
from embedl_deploy.modules.float32 import ToFloat32
from embedl_deploy.quantize import (
    CalibrationMethod,
    CenteringConfig,
    Precision,
    QuantConfig,
    Quantizer,
    TensorQuantConfig,
    freeze,
    quantization_recipe,
    quantization_report,
    quantize,
)
from embedl_deploy.quantize.grid.scales import grid_from_range
from support.nets import net, random_input

X = random_input(4, 3, 8, 8)
X6 = random_input(16, 6)


def chain(activation: nn.Module | None = None, second: nn.Module | None = None) -> nn.Module:
    """Two convolutions with an activation between them."""
    return net(
        lambda m, x: m.second(m.act(m.bn(m.first(x)))),
        first=nn.Conv2d(3, 8, 3, padding=1),
        bn=nn.BatchNorm2d(8),
        act=activation or nn.ReLU6(),
        second=second or nn.Conv2d(8, 4, 1),
    )


def centered(model: nn.Module, x: torch.Tensor = X, config: QuantConfig | None = None, **methods: object):
    return quantize(transform(model, x, backend="tensorrt"), [x], config, **{"centering": True, **methods})


def outcomes(model) -> list[str]:
    return [c.outcome for c in quantization_report(model).corrections if c.what == "centering"]


def run_file(path, x: torch.Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    return y


def operators(path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


def zero_points(path) -> list[np.ndarray]:
    model = onnx.load(path)
    tensors = {each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer}
    return [tensors[node.input[2]] for node in model.graph.node if node.op_type == "QuantizeLinear"]


def test_a_file_computes_in_integers_what_zero_points_mean(tmp_path):
    """One channel and weights of ones on the grid, against integers that are computed by hand."""
    model = net(
        lambda m, x: m.second(torch.relu(m.first(x))), first=nn.Conv2d(1, 1, 1), second=nn.Conv2d(1, 1, 3, padding=1)
    )
    kernel = np.array([[1, -2, 3], [4, 5, -6], [7, -8, 127]])
    with torch.no_grad():
        model.first.weight.fill_(1.0)
        model.first.bias.zero_()
        model.second.weight.copy_(torch.tensor(kernel, dtype=torch.float32) / 64)
        model.second.bias.fill_(0.5)
    x = (torch.randint(-255, 255, (1, 1, 6, 6), generator=torch.Generator().manual_seed(0)) / 16).float()
    x[0, 0, 0, 0], x[0, 0, 3, 3] = 255 / 16, 100 / 16
    only = QuantConfig(skip={"first"})
    quantized = centered(model, x, only)
    (step, z) = (1 / 16, -128)  # 256 numbers for 0 to 255/16
    quantizer = next(q for q in quantized.modules() if isinstance(q, Quantizer) and not q.is_weight)
    assert (float(quantizer.scale), int(quantizer.zero_point)) == (step, z)

    q = np.clip(np.rint(np.maximum(x[0, 0].numpy(), 0) / step) + z, -128, 127)
    padded = np.pad(q, 1, constant_values=z) - z
    expected = np.array([[(padded[i : i + 3, j : j + 3] * kernel).sum() for j in range(6)] for i in range(6)])
    expected = expected * step / 64 + 0.5

    path = tmp_path / "model.onnx"
    export_onnx(quantized, x, path)
    np.testing.assert_allclose(run_file(path, x)[0, 0], expected, rtol=0, atol=1e-4)
    np.testing.assert_allclose(quantized(x)[0, 0].detach().numpy(), expected, rtol=0, atol=1e-4)
    assert all((each == 0).all() for each in zero_points(path))
    # Symmetric steps are twice as large, less one number: 15.9375 / 127
    plain = quantize(transform(model, x, backend="tensorrt"), [x], only)
    step_without = next(q.scale for q in plain.modules() if isinstance(q, Quantizer) and not q.is_weight)
    assert float(step_without) == pytest.approx(255 / 16 / 127)


PADDED = nn.Conv2d(8, 4, 3, stride=2, padding=(1, 2), bias=False)


@pytest.mark.parametrize(
    ("activation", "second"),
    [
        (nn.ReLU(), PADDED),
        (nn.ReLU6(), PADDED),
        (nn.GELU(), PADDED),
        (nn.Hardsigmoid(), nn.Conv2d(8, 4, 1)),
        (nn.ReLU6(), nn.Conv2d(8, 8, 3, padding="same", groups=8)),
        (nn.ReLU(), nn.Conv2d(8, 4, 3, padding=2, dilation=2)),
    ],
    ids=str,
)
def test_files_compute_the_same(activation, second, tmp_path):
    quantized = centered(chain(activation, second))
    assert outcomes(quantized)[-1].startswith("at ")
    path = tmp_path / "model.onnx"
    exported = export_onnx(quantized, X, path, dynamic_batch=True)
    assert exported.difference.max_rel < 1e-2
    assert all((each == 0).all() for each in zero_points(path))
    assert check(path, backend="tensorrt").ok
    folded = isinstance(activation, (nn.ReLU, nn.ReLU6))
    assert ("Sub" in operators(path)) is not folded
    assert ("Pad" in operators(path)) is (second.kernel_size != (1, 1))


def test_padding_that_differs_from_side_to_side(tmp_path):
    model = net(
        lambda m, x: m.second(nn.functional.pad(torch.relu(m.first(x)), (0, 1, 0, 1))),
        first=nn.Conv2d(3, 8, 1),
        second=nn.Conv2d(8, 4, 3, stride=2),
    )
    quantized = centered(model)
    assert outcomes(quantized)[-1].endswith("padded by 0, 1, 0, 1")
    path = tmp_path / "model.onnx"
    assert export_onnx(quantized, X, path).difference.max_rel < 1e-2
    (pad,) = [node for node in onnx.load(path).graph.node if node.op_type == "Pad"]
    tensors = {each.name: onnx.numpy_helper.to_array(each) for each in onnx.load(path).graph.initializer}
    quantizer = quantized.get_submodule(quantization_report(quantized).quantized[-2].stub).quantizer
    assert tensors[pad.input[2]] == pytest.approx(-128 * float(quantizer.scale))


@pytest.mark.parametrize("norm", [False, True])
def test_products_of_rows(norm, tmp_path):
    model = net(lambda m, x: m.second(torch.relu(m.first(x))), first=nn.Linear(6, 8), second=nn.Linear(8, 3, bias=norm))
    quantized = centered(model, X6)
    path = tmp_path / "model.onnx"
    assert export_onnx(quantized, X6, path).difference.max_rel < 1e-2
    assert "Sub" not in operators(path)


def test_readers_share_a_centered_tensor(tmp_path):
    model = net(
        lambda m, x: (y := torch.relu(m.first(x)), m.a(y) + m.b(y))[1],
        first=nn.Conv2d(3, 8, 1),
        a=nn.Conv2d(8, 4, 1),
        b=nn.Conv2d(8, 4, 1),
    )
    quantized = centered(model)
    assert outcomes(quantized)[1].startswith("at ")
    path = tmp_path / "model.onnx"
    assert export_onnx(quantized, X, path).difference.max_rel < 1e-2
    assert "Sub" not in operators(path)


def test_a_tensor_that_others_read_in_float_is_shifted_by_an_operator(tmp_path):
    model = net(
        lambda m, x: (y := torch.relu(m.first(x)), torch.sin(y).mean() + m.a(y))[1],
        first=nn.Conv2d(3, 8, 1),
        a=nn.Conv2d(8, 4, 1),
    )
    path = tmp_path / "model.onnx"
    assert export_onnx(centered(model), X, path).difference.max_rel < 1e-2
    assert "Sub" in operators(path)


def test_a_batch_norm_by_the_statistics_of_each_batch(tmp_path):
    """It stays behind the convolution, and its bias is shifted."""
    model = net(
        lambda m, x: m.second(torch.relu(m.bn(m.first(x)))),
        first=nn.Conv2d(3, 8, 1),
        bn=nn.BatchNorm2d(8, affine=False, track_running_stats=False),
        second=nn.Conv2d(8, 4, 1),
    )
    path = tmp_path / "model.onnx"
    assert export_onnx(centered(model), X, path).difference.max_rel < 1e-2
    assert "Relu" not in operators(path)


def test_hooks_see_what_they_saw(tmp_path):
    model = net(
        lambda m, x: m.second(m.act(m.first(x))), first=nn.Conv2d(3, 8, 1), act=nn.ReLU(), second=nn.Conv2d(8, 4, 1)
    )
    model.act.register_forward_hook(lambda _module, _args, y: y * 2)
    path = tmp_path / "model.onnx"
    quantized = centered(model)
    assert export_onnx(quantized, X, path).difference.max_rel < 1e-2
    assert "Relu" in operators(path)
    assert "Sub" in operators(path)


def _twice(m, x):
    y = m.first(x)
    return m.second(torch.relu(y)) + m.second(torch.relu(-y))


DECLINED = {
    "padded": (chain(second=nn.Conv2d(8, 4, 3, padding=1)), None, CenteringConfig(padded=False), "pads"),
    "mode": (chain(second=nn.Conv2d(8, 4, 3, padding=1, padding_mode="reflect")), None, True, "module_declines"),
    "transposed": (
        chain(second=nn.ConvTranspose2d(8, 8, 2)),
        QuantConfig(policy=lambda _: None),
        True,
        "module_declines",
    ),
    "both sides": (chain(nn.ELU()), None, True, "on_both_sides"),
    "fp8": (chain(), QuantConfig(TensorQuantConfig(Precision.FP8)), True, "no_zero_point"),
    "learnable": (chain(), QuantConfig(TensorQuantConfig(learnable=True)), True, "no_zero_point"),
    "entropy": (
        chain(),
        QuantConfig(TensorQuantConfig(calibration_method=CalibrationMethod.ENTROPY)),
        True,
        "no_zero_point",
    ),
    "pool": (
        net(lambda m, x: m.pool(torch.relu(m.first(x))), first=nn.Conv2d(3, 8, 1), pool=nn.AdaptiveAvgPool2d(1)),
        QuantConfig(policy="all"),
        True,
        "module_declines",
    ),
    "twice": (
        net(_twice, first=nn.Conv2d(3, 8, 1), second=nn.Conv2d(8, 4, 1)),
        None,
        True,
        "module_called_several_times",
    ),
    "paddings": (
        net(
            lambda m, x: (y := torch.relu(m.first(x)), m.a(y) + m.b(y))[1],
            first=nn.Conv2d(3, 8, 1),
            a=nn.Conv2d(8, 4, 1),
            b=nn.Conv2d(8, 4, 3, padding=1),
        ),
        None,
        True,
        "paddings_differ",
    ),
}


@pytest.mark.parametrize(("model", "config", "centering", "cause"), DECLINED.values(), ids=DECLINED)
def test_what_is_declined(model, config, centering, cause, tmp_path):
    quantized = centered(model, X, config, centering=centering)
    last = [c for c in quantization_report(quantized).corrections if c.what == "centering"][-1]
    assert last.cause is not None
    assert last.cause.value == cause
    export_onnx(quantized, X, tmp_path / "model.onnx")
    assert all((each == 0).all() for each in zero_points(tmp_path / "model.onnx"))


@pytest.mark.parametrize("methods", [{}, {"bias_correction": True}, {"learned_rounding": True}], ids=str)
def test_with_other_corrections_and_restored(methods, tmp_path):
    model = chain(second=nn.Conv2d(8, 4, 3, padding=1))
    quantized = centered(model, **methods)
    recipe = quantization_recipe(quantized)
    restored = type(recipe).from_json(recipe.to_json()).rebuild(transform(model, X, backend="tensorrt"))
    restored.load_state_dict(quantized.state_dict())
    restored.eval()
    assert torch.equal(restored(X), quantized(X))
    export_onnx(restored, X, tmp_path / "a.onnx")
    export_onnx(quantized, X, tmp_path / "b.onnx")
    assert np.array_equal(run_file(tmp_path / "a.onnx", X), run_file(tmp_path / "b.onnx", X))


def test_a_state_without_centers_is_refused():
    model = chain()
    plain = quantize(transform(model, X, backend="tensorrt"), [X], QuantConfig(TensorQuantConfig(symmetric=False)))
    with pytest.raises(RuntimeError, match="INT8 asymmetric, and the model quantizes to INT8 centered"):
        centered(model).load_state_dict(plain.state_dict())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_types_of_files(dtype, tmp_path):
    quantized = centered(chain(second=nn.Conv2d(8, 4, 3, padding=1)))
    path = tmp_path / "model.onnx"
    export_onnx(quantized, X, path, dtype=dtype, integer_weights=True)
    assert all((each == 0).all() for each in zero_points(path))


def test_a_frozen_model_and_one_with_integer_weights(tmp_path):
    quantized = centered(
        net(lambda m, x: m.b(torch.relu(m.a(x))), a=nn.Linear(6, 8, bias=False), b=nn.Linear(8, 3)), X6
    )
    export_onnx(freeze(quantized), X6, tmp_path / "frozen.onnx")
    export_onnx(quantized, X6, tmp_path / "integer.onnx", integer_weights=True)
    expected = quantized(X6).detach().numpy()
    for name in ("frozen.onnx", "integer.onnx"):
        np.testing.assert_allclose(run_file(tmp_path / name, X6), expected, rtol=0, atol=1e-5)


def test_layers_that_stay_in_float32(tmp_path):
    """One of two readers overflows in float16, so that the quantized tensor is cast for it alone."""
    model = net(
        lambda m, x: (y := torch.relu(m.first(x)), (m.a(y) / 1e6, m.b(y)))[1],
        first=nn.Conv2d(3, 8, 1),
        a=nn.Conv2d(8, 4, 1),
        b=nn.Conv2d(8, 4, 1),
    )
    with torch.no_grad():
        model.a.weight.mul_(1e6)
    kept = keep_in_float32(centered(model), [X])
    modules = {node.module for node in float32_report(kept).nodes}
    assert "a" in modules
    assert "b" not in modules
    assert any(isinstance(part, ToFloat32) for part in kept.modules())
    path = tmp_path / "model.onnx"
    exported = export_onnx(kept, X, path, dtype=torch.float16)
    assert exported.difference.max_rel < 0.05
    assert all((each == 0).all() for each in zero_points(path))


def test_it_is_trained_and_exported(tmp_path):
    quantized = centered(chain(second=nn.Conv2d(8, 4, 3, padding=1))).train()
    optimizer = torch.optim.SGD(quantized.parameters(), 0.01)
    before = quantized(X).square().mean()
    for _ in range(3):
        optimizer.zero_grad()
        quantized(X).square().mean().backward()
        optimizer.step()
    assert quantized(X).square().mean() < before
    assert export_onnx(quantized, X, tmp_path / "model.onnx").difference.max_rel < 1e-2


def test_the_quantized_model_is_not_changed_by_its_export(tmp_path):
    quantized = centered(chain(second=nn.Conv2d(8, 4, 3, padding=1)))
    before, names = quantized(X), list(quantized.state_dict())
    export_onnx(quantized, X, tmp_path / "model.onnx")
    assert torch.equal(quantized(X), before)
    assert list(quantized.state_dict()) == names


def test_errors_are_halved():
    """A symmetric grid has 127 steps for values from 0 to 6, a centered one 255: 6 dB less error of rounding."""
    x = torch.rand(4, 8, 16, 16) * 6
    model = net(
        lambda m, x: m.second(nn.functional.relu6(m.first(x))), first=nn.Conv2d(8, 8, 1), second=nn.Conv2d(8, 4, 1)
    )
    with torch.no_grad():
        model.first.weight.copy_(torch.eye(8)[:, :, None, None])
        model.first.bias.zero_()
    config = QuantConfig(TensorQuantConfig(), None, skip={"first"})
    result = transform(model, x, backend="tensorrt")
    models = [quantize(result, [x], config, centering=centering) for centering in (False, True)]
    with torch.no_grad():
        plain, shifted = ((quantized(x) - model(x)).square().mean() for quantized in models)
    assert 10 * float(torch.log10(plain / shifted)) == pytest.approx(20 * np.log10(255 / 127), abs=0.3)


def test_the_configuration_does_not_take_it():
    with pytest.raises(QuantizationConfigError, match=re.escape("quantize(..., centering=True)")):
        QuantConfig(TensorQuantConfig(symmetric=False, centered=True))
    with pytest.raises(QuantizationConfigError, match="centered=True with symmetric=True"):
        TensorQuantConfig(centered=True)


def test_a_reader_that_was_put_there_later_is_refused(tmp_path):
    quantized = centered(chain())
    second = next(node for node in quantized.graph.nodes if node.target == "second")
    with quantized.graph.inserting_after(second):
        later = quantized.graph.call_function(torch.sin, (second.args[0],))
    with quantized.graph.inserting_after(later):
        total = quantized.graph.call_function(torch.add, (later.args[0].users and second, 1.0))
    quantized.graph.output_node().args = ((total, later),)
    quantized.recompile()
    with pytest.raises(ExportError, match="is centered, and cannot be shifted: sin reads it"):
        export_onnx(quantized, X, tmp_path / "model.onnx")


@pytest.mark.parametrize(
    ("low", "high", "scale", "zero_point"),
    [
        (0.0, 255.0, 1.0, -128),
        (-255.0, 0.0, 1.0, 127),
        (-51.0, 204.0, 1.0, -77),  # 20 % below zero: still shifted by 77
        (-100.0, 155.0, 155 / 127, 0),  # 39 %: a shift of 28 would gain little, so symmetric
    ],
)
def test_ranges_on_one_side_are_centered(low, high, scale, zero_point):
    grid = grid_from_range(low, high, TensorQuantConfig(symmetric=False, centered=True))
    assert (float(grid.scale), grid.zero_point) == (pytest.approx(scale), zero_point)
