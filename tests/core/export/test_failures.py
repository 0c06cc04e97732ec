"""What is told when the exporter fails: operator, module, line and remedy."""

import pytest
import torch
from torch import nn

from embedl_deploy import export_onnx, transform
from embedl_deploy.errors import ExportError, InputError
from support.nets import net, random_input

X = random_input(4, 4)


class Part(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def refusal(model, tmp_path, x=X, **settings):
    with pytest.raises(ExportError) as said:
        export_onnx(model, x, tmp_path / "m.onnx", **settings)
    assert len(str(said.value)) < 800
    return str(said.value)


@pytest.mark.parametrize(
    ("function", "operator"),
    [
        (lambda x: x.cummax(0).values, "aten.cummax.default"),
        (lambda x: torch.ops.aten._is_all_true(x > 0), "aten._is_all_true.default"),
    ],
)
@pytest.mark.parametrize("traced", [False, True])
def test_an_operator_without_translation(tmp_path, function, operator, traced):
    model = nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.ReLU(), Part(function))).eval()
    said = refusal(transform(model, patterns=[], trace="symbolic") if traced else model, tmp_path)
    assert f"torch.onnx cannot translate {operator!r}" in said
    assert "Write it with other operators" in said
    assert "in module '1.1'" in said
    assert "test_failures.py:" in said


@pytest.mark.parametrize("trace", [None, "symbolic", "export"])
def test_all_operators_without_translation_as_the_user_wrote_them(tmp_path, trace):
    class Computed(nn.Module):
        def forward(self, x):
            y = torch.special.i1e(x)
            return y + torch.linalg.matrix_exp(x)  # on a line of its own

    model = nn.Sequential(nn.Linear(4, 4), Computed()).eval()
    said = refusal(model if trace is None else transform(model, X, patterns=[], trace=trace), tmp_path)
    first, second = said.split("; nor ")
    assert "cannot translate torch.special.i1e ('prims.bessel_i1e.default'), in module '1' (" in first
    assert first.endswith("y = torch.special.i1e(x))")
    assert second.startswith("'aten.linalg_matrix_exp.default', in module '1' (")
    assert "# on a line of its own)" in second


@pytest.mark.parametrize("part", [nn.FractionalMaxPool2d(2, 3), nn.CrossMapLRN2d(3)])
def test_sizes_are_not_blamed_for_what_has_no_form(tmp_path, part):
    said = refusal(nn.Sequential(nn.ReLU(), part).eval(), tmp_path, random_input(2, 3, 8, 8), dynamic_batch=True)
    assert "in module '1'" in said and said.endswith("export the model without that part.")


def test_sizes_are_blamed_for_what_is_written_for_one_batch(tmp_path):
    said = refusal(Part(lambda x: x.reshape(4, 2, 2) + 1), tmp_path, dynamic_batch=True)
    assert "Compute sizes from the input (x.shape[0], -1)" in said


@pytest.mark.parametrize("trace", [None, "symbolic", "export"])
def test_a_layer_that_gives_a_tensor_another_storage(tmp_path, trace):
    model, x = nn.Sequential(nn.ReLU(), nn.CrossMapLRN2d(3)).eval(), random_input(2, 4, 4, 4)
    said = refusal(model if trace is None else transform(model, x, patterns=[], trace=trace), tmp_path, x)
    assert "it replaces the storage of a tensor, which cannot be exported" in said and "in module '1'" in said
    assert "nn.LocalResponseNorm" in said
    torch.testing.assert_close(nn.LocalResponseNorm(3)(x), model[1](x), rtol=1e-3, atol=0)
    assert not torch.equal(nn.LocalResponseNorm(3)(x), model[1](x))  # whose sums keep the first channel too long


def test_an_operator_that_is_translated_in_part(tmp_path):
    def grouped(x):
        ends = torch.tensor([8, 16], dtype=torch.int32)
        return torch._grouped_mm(torch.ones(16, 16).bfloat16(), torch.ones(16, 16).bfloat16(), offs=ends), x

    said = refusal(nn.Sequential(Part(grouped)), tmp_path)
    in_part = "'aten._grouped_mm.default' for this use of it (Grouped matmul with offsets"
    assert in_part in said or "cannot translate 'aten._grouped_mm.default'" in said  # by onnxscript 0.7.0
    assert "in module '0'" in said


class Spectrum(nn.Module):
    def __init__(self, wide):
        super().__init__()
        self.wide = wide

    def forward(self, x):
        return torch.fft.rfft(x.float() if self.wide else x).abs().to(x.dtype)


@pytest.mark.parametrize("trace", [None, "symbolic", "export"])
def test_an_operator_that_torch_does_not_compute_in_float16(tmp_path, trace):
    model = nn.Sequential(nn.ReLU(), Spectrum(False)).eval()
    given = model if trace is None else transform(model, X, patterns=[], trace=trace)
    with pytest.raises(ExportError) as told:
        export_onnx(given, X, tmp_path / "m.onnx", dtype=torch.float16)
    said = str(told.value)
    assert "torch does not compute 'aten.fft_rfft.default' in float16 (RuntimeError: Unsupported dtype Half)" in said
    assert "in module '1' (" in said and "test_failures.py:" in said and "Write the file in float32, or" in said


def test_what_the_advice_says_is_exported(tmp_path):
    written = export_onnx(nn.Sequential(Spectrum(True)), X, tmp_path / "m.onnx", dtype=torch.float16)
    assert written.difference.max_abs < 1e-2


def test_a_choice_by_values(tmp_path):
    model = nn.Sequential(nn.ReLU(), Part(lambda x: x if bool((x > 0).all()) else -x))
    said = refusal(model, tmp_path)
    assert "it branches on values of tensors" in said and "in module '1'" in said and "torch.where" in said


def test_an_error_of_the_users_own(tmp_path):
    def fail(x):
        raise ValueError(f"expected 3 channels\nfound {x.shape[1]}")

    with pytest.raises(InputError) as told:
        export_onnx(nn.Sequential(nn.ReLU(), Part(fail)), X, tmp_path / "m.onnx")
    said = str(told.value)
    assert "ValueError: expected 3 channels found 4, in module '1' (" in said and "test_failures.py:" in said
    assert said.endswith("Sequential cannot be run on these inputs itself. Pass inputs as the model is called.")


_PROJECTED = pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")  # torch's, of speed


@_PROJECTED
def test_what_the_checker_refuses_is_located(tmp_path):
    said = refusal(nn.LSTM(4, 8, proj_size=3), tmp_path)
    assert "onnx.checker rejects" in said and "what torch's exporter wrote for 'LSTM'. Write it" in said


@_PROJECTED
def test_what_onnxruntime_refuses_is_located(tmp_path):
    said = refusal(net(lambda self, x: self.cells(x)[0], cells=nn.LSTM(4, 8, proj_size=3)), tmp_path)
    assert "ONNX Runtime fails" in said and "what torch's exporter wrote for 'LSTM', in module 'cells'. Write" in said


@pytest.mark.parametrize(
    "given", [lambda r: r, lambda r: r.model, lambda r: r.report.plan.original], ids=["result", "graph", "model"]
)
@pytest.mark.parametrize("inputs", [(torch.ones(2, 5),), (X, X)], ids=["shape", "number"])
def test_inputs_that_do_not_fit_are_an_input_error_as_elsewhere(tmp_path, given, inputs):
    result = transform(nn.Sequential(nn.Linear(4, 4), nn.ReLU()).eval(), X, backend="tensorrt")
    with pytest.raises(
        InputError, match=r"with \(float32\[.* cannot be run on these inputs.*Pass inputs as the model is"
    ):
        export_onnx(given(result), inputs, tmp_path / "m.onnx")
    assert not (tmp_path / "m.onnx").exists()


def test_the_types_of_a_file_are_told(tmp_path):
    for dtype in ("float61", torch.int8):
        with pytest.raises(InputError, match=r"torch\.float32, torch\.float16 or torch\.bfloat16"):
            export_onnx(nn.Linear(4, 4), X, tmp_path / "m.onnx", dtype=dtype)
