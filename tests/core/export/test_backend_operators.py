"""A backend brings the ONNX form of an operator of its own, through a hook."""

import onnx
import pytest
import torch
from torch import nn

from embedl_deploy import export_onnx, transform
from embedl_deploy.backend import BackendInfo, hookimpl, reset_backends
from embedl_deploy.backend.loader.discovery import ENTRY_POINT_GROUP, PluginSource, installed_plugins
from embedl_deploy.errors import ExportError, PluginError
from embedl_deploy.modules import FusedMatmul
from embedl_deploy.patterns import Pattern, QDQPoint
from embedl_deploy.quantize import quantize

X = torch.randn(2, 6)


@torch.library.custom_op("acme_test::bounded", mutates_args=())
def bounded(x: torch.Tensor, most: float) -> torch.Tensor:
    return x.clamp(-most, most)


@bounded.register_fake
def _(x, most):
    return torch.empty_like(x)


class Bounded(FusedMatmul):
    def __init__(self, linear, act):
        super().__init__(linear)
        self.act = act

    def forward(self, x):
        return torch.ops.acme_test.bounded(self.project(x), 1.0)


class BoundedPattern(Pattern):
    tree = (nn.Linear, nn.Hardtanh)
    qdq_points = frozenset({QDQPoint.INPUT})
    graft = Bounded


class Plugin:
    def __init__(self, answer):
        self.answer = answer

    @hookimpl
    def embedl_deploy_describe(self):
        return BackendInfo("Acme NPU")

    @hookimpl
    def embedl_deploy_fusions(self):
        return [BoundedPattern()]

    @hookimpl
    def embedl_deploy_onnx_translations(self, opset):
        return self.answer(opset)


def with_clip(opset):
    import onnxscript

    op = getattr(onnxscript, f"opset{opset}")

    def clip(x, most):
        return op.Clip(x, op.Constant(value_float=-most), op.Constant(value_float=most))

    return {torch.ops.acme_test.bounded.default: clip}


class _EntryPoint:
    """Stands for an installed entry point."""

    def __init__(self, plugin):
        self.name, self.group, self.value, self.module = "acme", ENTRY_POINT_GROUP, "acme_plugin", "acme_plugin"
        self.load = lambda: plugin


@pytest.fixture
def acme(monkeypatch):
    """Install a backend with an answer of the hook, and give a model that was transformed for it."""

    def run(answer):
        source = PluginSource("acme", _EntryPoint(Plugin(answer)), "acme", "1.2")
        monkeypatch.setattr(
            "embedl_deploy.backend.loader.discovery.installed_plugins", lambda: [*installed_plugins(), source]
        )
        reset_backends()
        return transform(nn.Sequential(nn.Linear(6, 4), nn.Hardtanh()).eval(), X, backend="acme")

    yield run
    monkeypatch.undo()
    reset_backends()


@pytest.mark.parametrize("quantized", [False, True], ids=["float", "quantized"])
def test_it_is_used_and_the_file_agrees(acme, tmp_path, quantized):
    result = acme(with_clip)
    model = quantize(result, [X], progress=False) if quantized else result
    done = export_onnx(model, X, tmp_path / "model.onnx")
    operators = [node.op_type for node in onnx.load(done.path).graph.node]
    assert "Clip" in operators
    assert ("QuantizeLinear" in operators) is quantized
    assert done.difference.max_rel < 1e-5


def test_without_it_the_operator_is_named(acme, tmp_path):
    with pytest.raises(ExportError, match=r"acme_test\.bounded"):
        export_onnx(acme(lambda opset: None), X, tmp_path / "model.onnx")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda opset: 1 / 0, "fails in embedl_deploy_onnx_translations: ZeroDivisionError"),
        (lambda opset: [7], r"returns \[7\] from embedl_deploy_onnx_translations; expected a mapping"),
        (lambda opset: {"acme_test::bounded": print}, "returns 'acme_test::bounded' as an operator from .* such as"),
        (lambda opset: {torch.ops.acme_test.bounded.default: 7}, r"returns 7 for acme_test\.bounded\.default from"),
    ],
    ids=["raises", "no mapping", "no overload", "no function"],
)
def test_what_is_wrong_names_the_distribution(acme, tmp_path, answer, message):
    with pytest.raises(PluginError, match=rf"Backend 'acme' \(from acme 1\.2\) {message}"):
        export_onnx(acme(answer), X, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()
