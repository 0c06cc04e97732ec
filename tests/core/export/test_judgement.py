"""What is accepted of a file, and what is told of one that is not."""

import functools

import onnx_ir as ir
import pytest
import torch
from torch import nn

from embedl_deploy import export_onnx, transform
from embedl_deploy.errors import ExportError
from embedl_deploy.export import float16, judgement, program
from embedl_deploy.export.runtime import Ran, run_onnx
from embedl_deploy.quantize import quantize
from support.nets import net, random_input

X = random_input(2, 4, 8, 8)
ROWS = random_input(16, 8, 32)


def overflowing():
    model = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3)).eval()
    with torch.no_grad():
        model[0].weight.mul_(1e6), model[0].bias.mul_(1e6), model[2].weight.mul_(1e-6)
    return model


class RootMeanSquare(nn.Module):
    """Finite at the end in float16, and wrong: x² is infinite, and x / ∞ zero."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        y = self.a(x) * 500
        return self.b(y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-6))


class Log(nn.Module):
    def forward(self, x):
        return torch.log(x)


def deep(layers=8):
    torch.manual_seed(0)
    parts = [part for _ in range(layers) for part in (nn.Linear(32, 32), nn.LayerNorm(32), nn.GELU())]
    return nn.Sequential(*parts).eval()


class TestFloat16:
    def test_a_weight_beyond_its_range_is_refused_and_named(self, tmp_path):
        said = r"does not fit into float16: the tensor '0\.weight' reaches .*e\+05; .* not finite in float16.*bfloat16"
        with pytest.raises(ExportError, match=said):
            export_onnx(overflowing(), X, tmp_path / "m.onnx", dtype=torch.float16)
        assert not list(tmp_path.iterdir())
        assert export_onnx(overflowing(), X, tmp_path / "m.onnx").difference.max_rel < 1e-5

    @pytest.mark.parametrize("tolerance", ["auto", 0.01])
    def test_an_input_beyond_its_range_is_named(self, tmp_path, tolerance):
        model = net(lambda _self, x: x / 1e4)
        with pytest.raises(ExportError, match=r"input 0 reaches 1e\+05; the largest float16 number is 65504"):
            export_onnx(model, torch.full((2, 2), 1e5), tmp_path / "m.onnx", dtype=torch.float16, tolerance=tolerance)

    def test_finite_outputs_of_an_overflow_are_refused(self, tmp_path):
        said = r"\(?pow\)? computes \(.*test_judgement\.py:\d+: .*y\.pow\(2\).*\) reaches .*The outputs are wrong"
        with pytest.raises(ExportError, match=rf"'pow_1' {said}"):
            model = transform(RootMeanSquare().eval(), patterns=[])
            export_onnx(model, random_input(4, 8), tmp_path / "m.onnx", dtype=torch.float16)
        with pytest.raises(ExportError, match=rf"what {said}"):
            export_onnx(RootMeanSquare().eval(), random_input(4, 8), tmp_path / "m.onnx", dtype=torch.float16)

    def test_the_figures_are_those_against_the_model_in_float32(self, tmp_path):
        model, x = nn.Linear(32, 8).eval(), random_input(4, 32)
        written = export_onnx(model, x, tmp_path / "m.onnx", dtype=torch.float16)
        (found,) = run_onnx(written.path, x.half())
        wanted = model(x).detach()
        assert written.difference.max_abs == pytest.approx(float((found.double() - wanted.double()).abs().max()))
        noise = float((found.double() - wanted.double()).square().sum() / wanted.double().square().sum())
        assert written.sqnr == pytest.approx(-10 * torch.tensor(noise).log10().item())

    def test_what_is_not_finite_in_the_model_may_be_so_in_the_file(self, tmp_path):
        model = net(lambda _self, x: torch.cat([x / 0, (x - x) / 0, x]))
        assert export_onnx(model, torch.ones(2), tmp_path / "m.onnx", dtype=torch.float16).difference.max_abs == 0

    def test_a_quantized_model_may_be_no_number_where_its_file_is_none(self, tmp_path):
        torch.manual_seed(0)  # of one rounding alone, steps of the grid that fall to the other side are too few
        model = nn.Sequential(nn.Linear(8, 8), Log()).eval()
        x = torch.randn(16, 8)
        quantized = quantize(transform(model, x, backend="tensorrt"), [x], progress=False)
        written = export_onnx(quantized, x, tmp_path / "m.onnx", dtype=torch.float16)
        assert quantized(x).isnan().any() and written.sqnr > 25

    def test_a_model_without_kernels_in_float16_is_judged_by_the_file(self, tmp_path, monkeypatch):
        def run(*_, **__):
            raise RuntimeError("\"conv\" not implemented for 'Half'")

        monkeypatch.setattr(float16, "run_watched", run)
        written = export_onnx(nn.Linear(8, 4), random_input(2, 8), tmp_path / "m.onnx", dtype=torch.float16)
        assert "not implemented for 'Half'" in written.notes[0]


class TestRounding:
    quantized = staticmethod(
        functools.cache(lambda: quantize(transform(deep(), ROWS, backend="tensorrt"), [ROWS], progress=False))
    )

    def test_of_a_deep_network_is_no_fault(self, tmp_path):
        model = self.quantized()
        written = export_onnx(model, ROWS, tmp_path / "m.onnx", dtype=torch.float16)
        assert written.difference.max_rel > 5e-2, "what this is about"
        assert "has an SQNR of" in written.notes[0]

    def test_a_spoiled_weight_is_one(self, tmp_path, monkeypatch):
        def spoiled(*args, **settings):
            made, replaced = translated(*args, **settings)
            weight = next(v for n, v in made.model.graph.initializers.items() if n.startswith("15") and "weight" in n)
            numbers = weight.const_value.numpy()
            weight.const_value = ir.tensor((numbers * 0.7).astype(numbers.dtype), name=weight.name)
            return made, replaced

        translated = program.translated
        monkeypatch.setattr("embedl_deploy.export.onnx.translated", spoiled)
        with pytest.raises(ExportError, match=r"does not compute what the model computes.* dB is required"):
            export_onnx(self.quantized(), ROWS, tmp_path / "m.onnx", dtype=torch.float16)

    def test_an_output_that_rounding_leaves_nothing_of_cannot_be_judged(self, tmp_path, monkeypatch):
        chaotic = net(lambda _self, x: torch.sin(x * 1e6))  # a millionth of the input is a turn of the sine
        monkeypatch.setattr(judgement, "run_file", lambda *_: Ran([torch.sin(X * 1e6 + 1)]))
        with pytest.raises(ExportError, match=r"too little to tell a correct file .*\. (Rounding|With these).*"):
            export_onnx(chaotic, X, tmp_path / "m.onnx")

    @pytest.mark.parametrize("found", [float("nan"), float("inf")])
    def test_what_is_not_finite_is_never_accepted(self, tmp_path, monkeypatch, found):
        model = net(lambda _self, x: torch.sin(x * 1e4))
        monkeypatch.setattr(judgement, "run_file", lambda *_: Ran([torch.full_like(X, found)]))
        with pytest.raises(ExportError, match="does not compute"):
            export_onnx(model, X, tmp_path / "m.onnx")

    def test_other_shapes_are_refused(self, tmp_path, monkeypatch):
        monkeypatch.setattr(judgement, "run_file", lambda *_: Ran([X[:1]]))
        with pytest.raises(ExportError, match=r"outputs have the shapes \[\(1, 4, 8, 8\)\]; the model's have \[\(2, 4"):
            export_onnx(net(lambda _self, x: x * 2), X, tmp_path / "m.onnx")


def test_ties_are_told(tmp_path):
    def forward(self, x):
        best = torch.topk(x.round().flatten(1), 100).indices
        return best, self.fc(x).flatten(1).gather(1, best)

    model = net(forward, fc=nn.Linear(64, 64))
    written = export_onnx(model, random_input(2, 8, 64), tmp_path / "m.onnx", output_names=["where", "what"])
    assert written.notes[0].startswith("Ties: output(s) 'where', 'what' depend on the order of equal scores")
    assert written.difference.max_rel < 1e-5


def test_a_model_in_training_mode_is_told_as_that(tmp_path):
    model = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5)).train()
    result = transform(model, X, patterns=[])
    why = (
        "the model is in training mode: '1' (BatchNorm2d), '2' (Dropout) compute with the statistics of the batch, or "
        "with random numbers. Call eval() on it before you transform or export it, unless you want to train it."
    )
    assert why in result.report["notes"]
    assert not transform(model.eval(), X, patterns=[]).report["notes"]
    with pytest.raises(ExportError) as caught:
        export_onnx(result, X, tmp_path / "x.onnx")
    assert f"computes: {why} The difference is max" in str(caught.value)


def test_a_complex_output_is_refused_with_what_to_return_instead(tmp_path):
    class Spectrum(nn.Linear):
        def forward(self, x):
            return torch.fft.fft(super().forward(x))

    class Parts(Spectrum):
        def forward(self, x):
            return torch.view_as_real(super().forward(x))

    x = torch.randn(2, 8)
    with pytest.raises(ExportError, match=r"An output of the model is complex.*Return torch.view_as_real\(y\)"):
        export_onnx(Spectrum(8, 8), x, tmp_path / "m.onnx")
    model = Parts(8, 8)
    written = export_onnx(model, x, tmp_path / "m.onnx")
    assert torch.allclose(run_onnx(written.path, x)[0], model(x), atol=1e-4)


def test_a_model_that_draws_random_numbers_is_told_so(tmp_path):
    """As the sampling of an autoencoder (Kingma and Welling 2013)."""

    class Sampling(nn.Module):
        def __init__(self):
            super().__init__()
            self.mean = nn.Linear(8, 8)

        def forward(self, x):
            mean = self.mean(x)
            return mean + torch.randn_like(mean)

    x = torch.randn(2, 8)
    result = transform(Sampling().eval(), x, backend="tensorrt")
    with pytest.raises(ExportError, match=r"it draws random numbers \(randn_like\).* Make them an input of the model"):
        export_onnx(result, x, tmp_path / "m.onnx")
