"""Engines that TensorRT for RTX builds; needs the extra ``rtx``, no GPU."""

import signal

import onnx
import pytest
import torch
from torch import nn

from embedl_deploy import compile, export_onnx, transform  # noqa: A004
from embedl_deploy.backend import CompileOptions, get_backend
from embedl_deploy.engine import EngineReport, LayerKind, estimate
from embedl_deploy.errors import CompileError, InputError
from embedl_deploy.quantize import Precision, QuantConfig, TensorQuantConfig, quantize
from embedl_deploy.tensorrt import TENSORRT_PATTERNS
from embedl_deploy.tensorrt.compilers import TensorRTForRTX
from support.nets import random_input, scrambled
from support.squeeze_excite import NestedSEPattern, SqueezeExcite

MISSING = TensorRTForRTX().missing()
pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))

IMAGE = random_input(1, 16, 32, 32)
FP8 = TensorQuantConfig(Precision.FP8)


def network():
    block = [nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU()]
    return scrambled(nn.Sequential(*block, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))).eval()


def test_a_gpu_that_it_does_not_support_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("embedl_deploy.tensorrt.compilers.rtx.target_here", lambda: "sm90")
    export_onnx(nn.Conv2d(16, 8, 3).eval(), IMAGE, tmp_path / "net.onnx")
    done = TensorRTForRTX().build(tmp_path / "net.onnx", CompileOptions(), lambda *_: None)
    assert done.target == "sm89"
    assert "does not support the GPU in this machine, sm90: the engine is for sm89." in done.messages[0]


def exported(path, model, x, config=None, **options):
    result = transform(model, x, backend="tensorrt")
    quantized = quantize(result, [x], config, progress=False) if config is not None else result
    export_onnx(quantized, x, path, **options)
    return path


def built(path, **options):
    return compile(path, path.with_suffix(".engine"), backend="tensorrt", compiler="tensorrt-rtx", **options)


def test_centering_makes_no_kernels(tmp_path):
    """Neither shifts nor paddings do; the second convolution pads and the third does not."""
    block = [nn.Conv2d(16, 32, 1), nn.ReLU6(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 16, 1)]
    result = transform(scrambled(nn.Sequential(*block)).eval(), IMAGE, backend="tensorrt")
    reports = {}
    for centering in (False, True):
        quantized = quantize(result, [IMAGE], centering=centering, progress=False)
        path = tmp_path / f"{centering}.onnx"
        export_onnx(quantized, IMAGE, path, dtype=torch.float16)
        reports[centering] = built(path, target="sm89").report
    assert "Pad" in {node.op_type for node in onnx.load(tmp_path / "True.onnx").graph.node}
    assert reports[True].kernels == reports[False].kernels
    assert (
        reports[True].weighted_by_precision
        == reports[False].weighted_by_precision
        == {(LayerKind.CONVOLUTION, "int8"): 3}
    )


@pytest.mark.parametrize(
    ("config", "dtype"),
    [
        (None, "float16"),
        (QuantConfig(policy="all"), "int8"),
        (QuantConfig(FP8, TensorQuantConfig(Precision.FP8, per_channel=True)), "float8_e4m3"),
    ],
    ids=["FP16", "INT8", "FP8"],
)
@pytest.mark.parametrize("target", ["sm86", "sm89", "sm120"])
def test_precisions_and_modules(tmp_path, config, dtype, target):
    path = exported(tmp_path / "net.onnx", network(), IMAGE, config, dtype=torch.float16)
    if (dtype, target) == ("float8_e4m3", "sm86"):
        with pytest.raises(CompileError, match=r"refuses net\.onnx(.|\n)*no FP8: that needs compute capability 8\.9"):
            built(path, target=target)
        return
    result = built(path, target=target)
    report = result.report
    assert report.target == target
    assert EngineReport.load(result.report_path) == report
    assert result.path.stat().st_size == report.engine_bytes > 0
    assert all(kind is not LayerKind.CONVOLUTION or found == dtype for kind, found in report.weighted_by_precision)
    assert sum(count for (kind, _), count in report.weighted_by_precision.items() if kind.is_weighted) == 3
    modules = {module for layer in report.layers if layer.kind.is_weighted for module in layer.modules}
    assert any(module.startswith("0") for module in modules)
    operations = sum(layer.operations for layer in report.layers)
    assert operations == 2 * (32 * 32 * 32 * 16 * 9 + 32 * 30 * 30 * 32 * 9 + 32 * 10)
    devices = {device.target: device for device in get_backend("tensorrt").devices}
    assert 0 < estimate(report, devices[target]).seconds < 1e-3


def test_a_module_with_two_weights_is_compiled_in_int8(tmp_path):
    """A squeeze-and-excitation; its second product, over four channels, becomes part of a pointwise kernel."""
    model, x = scrambled(SqueezeExcite(16)).eval(), random_input(1, 3, 32, 32)
    result = transform(model, x, patterns=[NestedSEPattern(), *TENSORRT_PATTERNS])
    quantized = quantize(result, [x], QuantConfig(), learned_rounding=True, progress=False)
    export_onnx(quantized, x, tmp_path / "se.onnx", dtype=torch.float16, integer_weights=True)
    report = built(tmp_path / "se.onnx", target="sm89").report
    weighted = [layer for layer in report.layers if layer.kind.is_weighted]
    assert {layer.precision for layer in weighted} == {"int8"} and report.float_layers == ()
    assert "pool.reduce" in {module for layer in weighted for module in layer.modules}
    assert "pool.expand" in {module for layer in report.layers for module in layer.modules}


class Causal(nn.Module):
    def forward(self, x):
        heads = x.unflatten(-1, (4, -1)).transpose(1, 2)
        return nn.functional.scaled_dot_product_attention(heads, heads, heads, is_causal=True)


@pytest.mark.parametrize("activation", [nn.GELU(), nn.Tanh()], ids=["fused", "not fused"])
def test_a_product_is_one_kernel_with_an_activation_that_no_pattern_fuses(tmp_path, activation):
    model = nn.Sequential(nn.Linear(32, 32), activation, nn.Linear(32, 32)).eval()
    done = built(exported(tmp_path / "net.onnx", model, random_input(8, 32), dtype=torch.float16))
    assert [layer.kind for layer in done.report.layers] == [LayerKind.GEMM, LayerKind.GEMM]


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        (nn.TransformerDecoderLayer(32, 4, 64, batch_first=True), (random_input(2, 7, 32), random_input(2, 5, 32))),
        (nn.Sequential(nn.Linear(32, 32), Causal()), (random_input(2, 7, 32),)),
    ],
    ids=["decoder", "causal"],
)
def test_attention_of_every_kind_is_computed_in_int8(tmp_path, model, inputs):
    result = transform(scrambled(model).eval(), inputs, backend="tensorrt")
    path = tmp_path / "net.onnx"
    export_onnx(quantize(result, [inputs], progress=False), inputs, path, dtype=torch.float16)
    precisions = built(path, target="sm89").report.weighted_by_precision
    assert precisions and all(found == "int8" for _, found in precisions)


class Masked(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(64, 192), nn.Linear(64, 64)

    def forward(self, x, mask):
        q, k, v = self.qkv(x).reshape(*x.shape[:2], 3, 4, 16).permute(2, 0, 3, 1, 4).unbind(0)
        attended = nn.functional.scaled_dot_product_attention(q, k, v, mask)
        return x + self.out(attended.transpose(1, 2).reshape(x.shape))


def test_a_mask_leaves_both_products_in_the_kernel_of_the_softmax(tmp_path):
    inputs = random_input(2, 32, 64), torch.ones(2, 1, 32, 32, dtype=torch.bool).tril(-1)
    result = transform(Masked().eval(), inputs, backend="tensorrt")
    for model in (result, quantize(result, [inputs], progress=False)):
        export_onnx(model, inputs, path := tmp_path / "net.onnx", dtype=torch.float16, tolerance=None)
        kinds = [layer.kind for layer in built(path, target="sm89").report.layers if layer.kind.is_weighted]
        assert kinds == [LayerKind.GEMM, LayerKind.ATTENTION, LayerKind.GEMM], "one of the attention's is on its own"


def test_what_stays_in_float_is_named(tmp_path):
    path = exported(tmp_path / "net.onnx", network(), IMAGE, QuantConfig(skip=["0*"]), dtype=torch.float16)
    (found,) = built(path).report.float_layers
    assert (found.kind, found.precision, found.reason) == (
        LayerKind.CONVOLUTION,
        "float16",
        "not quantized: skip: '0*'",
    )
    assert found.module.startswith("0")


class TestOptions:
    def test_open_dimensions_need_shapes(self, tmp_path):
        path = exported(tmp_path / "net.onnx", network(), IMAGE, dynamic_batch=True)
        with pytest.raises(InputError, match=r"'.*' have open dimensions.*shapes="):
            built(path)
        name = "input" if "input" in _inputs(path) else _inputs(path)[0]
        sizes = tuple((n, 16, 32, 32) for n in (1, 4, 8))
        assert built(path, shapes={name: sizes}).report.kernels > 0

    def test_an_unknown_target(self, tmp_path):
        path = exported(tmp_path / "net.onnx", network(), IMAGE)
        with pytest.raises(InputError, match=r"target is 'sm12'; TensorRT for RTX .* builds for .*sm89"):
            built(path, target="sm12")
        with pytest.raises(InputError, match=r"The target of RTX 4090 is sm89\."):
            built(path, target="rtx 4090")

    def test_an_option_that_this_compiler_lacks(self, tmp_path):
        path = exported(tmp_path / "net.onnx", network(), IMAGE)
        with pytest.raises(InputError, match="timing_cache"):
            built(path, timing_cache=tmp_path / "times")

    def test_refitting_and_stripped_weights_need_a_driver(self, tmp_path):
        path = exported(tmp_path / "net.onnx", network(), IMAGE)
        whole = built(path).report.engine_bytes
        if torch.cuda.is_available():
            assert built(path, strip_weights=True).report.engine_bytes < whole
            return
        with pytest.raises(CompileError, match="this machine has none"):
            built(path, strip_weights=True)

    def test_a_timeout(self, tmp_path):
        path = exported(tmp_path / "net.onnx", network(), IMAGE)
        with pytest.raises(CompileError, match="took longer than its timeout of 1e-06 s"):
            built(path, timeout=1e-6)
        assert not path.with_suffix(".engine").exists()


def _inputs(path):

    return [value.name for value in onnx.load(path).graph.input]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_build_in_order(tmp_path, number):
    path, steps = exported(tmp_path / "net.onnx", network(), IMAGE), []

    class Ended(Exception):
        pass

    def end(_number, _frame):
        raise Ended

    def progress(step, done, total):
        steps.append(step)
        signal.raise_signal(number)

    before = signal.signal(number, end)
    try:
        with pytest.raises(Ended):
            TensorRTForRTX().build(path, CompileOptions(), progress)
        assert signal.getsignal(number) is end and steps
    finally:
        signal.signal(number, before)


class Block(nn.Module):
    """A transformer block of 12 heads of 64 channels, as ViT-B/16 has 12 of."""

    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(768), nn.LayerNorm(768)
        self.attention = nn.MultiheadAttention(768, 12, batch_first=True)
        self.up, self.down = nn.Linear(768, 3072), nn.Linear(3072, 768)

    def forward(self, x):
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.down(nn.functional.gelu(self.up(self.norm2(x))))


def test_keys_are_not_moved_on_their_own(tmp_path):
    """Per block: norm, projection, split, attention, projection and sum, norm, product and GELU, product and sum."""
    report = built(exported(tmp_path / "a.onnx", Block().eval(), random_input(1, 197, 768), dtype=torch.float16)).report
    assert report.kernels <= 10  # with torch's own form of attention it was two more
    assert report.activation_bytes <= 9.7e6  # 10.9e6


@pytest.mark.parametrize(("tokens", "heads"), [(56, 3), (28, 6), (14, 12), (7, 24)])
def test_attention_within_windows_is_one_kernel(tokens, heads, tmp_path):
    """As in swin_t, shifted: each bias and mask is a constant in the file."""
    from torchvision.models.swin_transformer import SwinTransformerBlock

    model, x = (
        SwinTransformerBlock(32 * heads, heads, [7, 7], [3, 3]).eval(),
        random_input(1, tokens, tokens, 32 * heads),
    )
    report = built(exported(tmp_path / "a.onnx", model, x, dtype=torch.float16)).report
    assert [layer.kind for layer in report.layers].count(LayerKind.ATTENTION) == 1
    assert not any("float32" in {tensor.dtype for tensor in layer.outputs} for layer in report.layers)
