"""Export to ONNX: what is written, what is refused, and that nothing is left behind."""

import os
from dataclasses import dataclass

import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from embedl_deploy import OnnxExport, export_onnx, transform
from embedl_deploy.errors import ExportError, InputError
from embedl_deploy.export import judgement, run_onnx
from embedl_deploy.export import onnx as onnx_export
from embedl_deploy.export.runtime import Ran
from support.nets import net, random_input
from support.small_patterns import PATTERNS

X = random_input(2, 3, 4, 4)


def conv_net(**settings):
    return net(lambda self, x: torch.relu(self.conv(x)), conv=nn.Conv2d(3, 2, 1, **settings))


def entries(folder):
    return sorted(path.name for path in folder.iterdir())


def state_of(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


class TestWritten:
    def test_from_a_result(self, tmp_path):
        result = transform(conv_net(), patterns=PATTERNS)
        before = state_of(result.model)
        path = tmp_path / "deep" / "er" / "model.onnx"
        written = export_onnx(result, X, path, input_names=["image"], output_names=["map"])
        assert isinstance(written, OnnxExport)
        assert written.path == path
        first, *notes = str(written).splitlines()
        said = f"Wrote {path}: {written.size / 1e3:.1f} kB, operator set 18; ONNX Runtime against PyTorch: max |Δ| = "
        assert first.startswith(said)
        assert tuple(notes) == written.notes
        assert entries(path.parent) == ["model.onnx"]
        assert written.size == path.stat().st_size
        assert (written.input_names, written.output_names) == (("image",), ("map",))
        assert written.difference.max_rel < 1e-5
        model = onnx.load(path)
        assert written.opset == 18
        assert {entry.domain: entry.version for entry in model.opset_import}[""] == 18
        torch.testing.assert_close(run_onnx(path, X)[0], result.model(X))
        after = result.model.state_dict()
        assert all(torch.equal(before[name], after[name]) for name in before)
        assert not any(module.training for module in result.model.modules())

    def test_from_a_module_with_several_inputs_and_outputs(self, tmp_path):
        def forward(self, x, y):
            return {"sum": x + y, "both": (self.conv(x), y * 2)}

        model = net(forward, conv=nn.Conv2d(3, 2, 1))
        path = tmp_path / "model.onnx"
        written = export_onnx(model, (X, X + 1), os.fspath(path), opset=20)
        assert written.opset == 20
        assert {entry.domain: entry.version for entry in onnx.load(path).opset_import}[""] == 20
        assert len(written.input_names) == 2
        assert len(written.output_names) == 3
        outputs = run_onnx(path, X, X + 1)
        wanted = model(X, X + 1)
        for got, want in zip(outputs, (wanted["sum"], *wanted["both"]), strict=True):
            torch.testing.assert_close(got, want)

    def test_keyword_inputs(self, tmp_path):
        model = net(lambda self, x, y: x - y)
        written = export_onnx(model, (X,), tmp_path / "m.onnx", kwargs={"y": X * 2})
        assert written.difference.max_abs == 0
        assert len(written.input_names) == 2

    @pytest.mark.parametrize("example", [1, 3])
    def test_any_batch_with_dynamic_batch(self, tmp_path, example):
        model = net(lambda self, x: self.fc(self.conv(x).flatten(1)), conv=nn.Conv2d(3, 2, 1), fc=nn.Linear(32, 2))
        x = random_input(example, 3, 4, 4)
        kept = x.clone()
        written = export_onnx(transform(model, patterns=PATTERNS), x, tmp_path / "m.onnx", dynamic_batch=True)
        path, largest = written.path, written.shapes["x"][-1][0]
        told = [note for note in written.notes if "has no upper limit, so 'shapes' has the example's size, 1, " in note]
        assert (largest, len(told)) == (example, example == 1)  # an engine for these shapes takes no other batch
        dimension = onnx.load(path).graph.input[0].type.tensor_type.shape.dim[0]
        assert dimension.dim_param and not dimension.dim_value
        for batch in (1, 2, 5):
            other = random_input(batch, 3, 4, 4, seed=batch)
            torch.testing.assert_close(run_onnx(path, other)[0], model(other))
        assert torch.equal(x, kept)

    def test_fixed_batch_without(self, tmp_path):
        path = export_onnx(conv_net(), X, tmp_path / "m.onnx", tolerance=None).path
        assert onnx.load(path).graph.input[0].type.tensor_type.shape.dim[0].dim_value == 2
        with pytest.raises(ExportError, match="ONNX Runtime fails"):
            run_onnx(path, random_input(3, 3, 4, 4))
        with pytest.raises(InputError, match="but 2 were given"):
            run_onnx(path, X, X)

    def test_existing_file_is_replaced(self, tmp_path):
        path = tmp_path / "m.onnx"
        path.write_text("old")
        export_onnx(conv_net(), X, path)
        onnx.checker.check_model(path)
        assert entries(tmp_path) == ["m.onnx"]

    def test_tolerance_none_does_not_run_onnxruntime(self, tmp_path, monkeypatch):
        def run(*args):
            pytest.fail("ONNX Runtime was run")

        monkeypatch.setattr(judgement, "run_file", run)
        written = export_onnx(conv_net(), X, tmp_path / "m.onnx", tolerance=None)
        assert written.difference is None and written.sqnr is None
        onnx.checker.check_model(written.path)

    def test_weights_of_a_large_model_lie_beside_it(self, tmp_path, monkeypatch):
        monkeypatch.setattr(onnx_export, "_EXTERNAL_DATA_BYTES", 100)
        model = net(lambda self, x: self.fc(x), fc=nn.Linear(64, 64))
        x = random_input(2, 64)
        written = export_onnx(model, x, tmp_path / "m.onnx")
        assert entries(tmp_path) == ["m.onnx", "m.onnx.data"]
        assert written.size == sum(path.stat().st_size for path in tmp_path.iterdir())
        torch.testing.assert_close(run_onnx(written.path, x)[0], model(x))

    def test_the_users_module_and_random_state_are_as_before(self, tmp_path):
        model = conv_net()
        before, rng, kept = state_of(model), torch.get_rng_state(), X.clone()
        export_onnx(model, X, tmp_path / "m.onnx")
        assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
        assert torch.equal(torch.get_rng_state(), rng)
        assert torch.equal(X, kept)


class TestWrongArguments:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"model": 3}, "export_onnx: model is 3; expected a module"),
            ({"opset": 17}, "opset is 17; torch's exporter needs 18 or more"),
            ({"opset": "18"}, "opset is '18'"),
            ({"opset": True}, "opset is True"),
            ({"opset": 99999}, "opset is 99999; the newest that onnx .* knows is "),
            ({"args": None}, "args is None; export_onnx needs example inputs"),
            ({"args": {"x": X}}, "args is a dict"),
            ({"dynamic_shapes": {"y": None}}, "dynamic_shapes names 'y'; the inputs are 'x'"),
        ],
    )
    def test_are_input_errors(self, tmp_path, settings, message):
        call = {"model": conv_net(), "args": X, "path": tmp_path / "m.onnx", **settings}
        with pytest.raises(InputError, match=message):
            export_onnx(**call)
        assert entries(tmp_path) == []

    def test_a_folder_is_no_file(self, tmp_path):
        with pytest.raises(InputError, match="is a folder"):
            export_onnx(conv_net(), X, tmp_path)


class Untranslatable(nn.Module):
    """Fails in the exporter, not before."""

    def forward(self, x):
        if x.sum() > 0:
            return x
        return -x


class TestFailures:
    """After each, the folder is what it was."""

    @pytest.fixture(params=[None, "old"], ids=["no file", "an older file"])
    def target(self, tmp_path, request):
        path = tmp_path / "model.onnx"
        if request.param is not None:
            path.write_text(request.param)
        yield path
        assert entries(tmp_path) == ([] if request.param is None else ["model.onnx"])
        assert request.param is None or path.read_text() == request.param

    def test_a_model_that_cannot_be_exported(self, target):
        with pytest.raises(
            ExportError, match=r"Untranslatable cannot be exported to ONNX with \(float32\[2, 3, 4, 4\]"
        ):
            export_onnx(Untranslatable(), X, target)

    def test_an_operator_set_that_the_exporter_cannot_write(self, target, monkeypatch):
        def written_for_another(*args, **options):
            program, replaced = program_of(*args, **options)
            program.model.opset_imports[""] = 18
            return program, replaced

        program_of = onnx_export.translated
        monkeypatch.setattr(onnx_export, "translated", written_for_another)
        with pytest.raises(ExportError, match=r"opset is 20, but torch's exporter writes the file for 18: .*opset=18"):
            export_onnx(conv_net(), X, target, opset=20)

    def test_inputs_that_do_not_fit(self, target):
        with pytest.raises(InputError, match=r"float32\[2, 5, 4, 4\].* cannot be run on these inputs itself"):
            export_onnx(conv_net(), random_input(2, 5, 4, 4), target)

    def test_a_fixed_batch_with_dynamic_batch(self, target):
        model = net(lambda self, x: x.view(2, 48))
        with pytest.raises(ExportError, match="dynamic_batch=False"):
            export_onnx(model, X, target, dynamic_batch=True)

    @pytest.mark.parametrize("tolerance", ["auto", 0.001])
    def test_other_numbers(self, target, monkeypatch, tolerance):
        monkeypatch.setattr(judgement, "run_file", lambda *_: Ran([conv_net()(X).detach() + 0.5]))
        with pytest.raises(ExportError, match=r"does not compute what the model computes.*0\.5.*accepted: 0\.001"):
            export_onnx(conv_net(), X, target, tolerance=tolerance)

    def test_the_checker_refuses(self, target, monkeypatch):
        def refuse(*args, **kwargs):
            raise onnx.checker.ValidationError("no good")

        monkeypatch.setattr(onnx.checker, "check_model", refuse)
        with pytest.raises(ExportError, match=r"onnx\.checker rejects the exported file: no good"):
            export_onnx(conv_net(), X, target)

    @pytest.mark.parametrize("place", ["_check", "judge"])
    def test_interrupted(self, target, monkeypatch, place):
        def interrupt(*args, **settings):
            raise KeyboardInterrupt

        monkeypatch.setattr(onnx_export, place, interrupt)
        with pytest.raises(KeyboardInterrupt):
            export_onnx(conv_net(), X, target)


def test_run_onnx_refuses_what_is_no_model(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_text("nothing")
    with pytest.raises(ExportError, match="ONNX Runtime refuses"):
        run_onnx(path, X)


class TestHalf:
    @pytest.mark.parametrize("native", [True, False])
    def test_bfloat16_is_of_the_operator_set_that_convolves_it(self, tmp_path, native):
        model, x = (conv_net().bfloat16(), X.bfloat16()) if native else (conv_net(), X)
        dtype = None if native else torch.bfloat16
        written = export_onnx(model, x, tmp_path / "m.onnx", dtype=dtype)
        assert written.opset == 22
        assert written.difference.max_rel < 2e-2
        assert any("lacks a CPU kernel" in note for note in written.notes)


class KeywordOnly(nn.Module):
    def forward(self, x, *, a, b):
        return x * a - b


class OfDictionary(nn.Module):
    def forward(self, parts):
        return parts["a"] - 2 * parts["b"]


class TestInputs:
    @pytest.mark.parametrize("prepare", [lambda m, _: m, lambda m, named: transform(m, X, kwargs=named, patterns=[])])
    def test_keyword_inputs_in_another_order(self, tmp_path, prepare):
        named = {"b": X * 2, "a": X * 3}
        model = prepare(KeywordOnly(), named)
        written = export_onnx(model, X, tmp_path / "m.onnx", kwargs=named)
        assert written.input_names == ("x", "a", "b")
        assert written.difference.max_abs < 1e-6

    @pytest.mark.parametrize("prepare", [lambda m, _: m, lambda m, args: transform(m, args, patterns=[])])
    def test_a_dictionary_as_last_input(self, tmp_path, prepare):
        args = ({"a": X, "b": X * 3},)
        written = export_onnx(prepare(OfDictionary(), args), args, tmp_path / "m.onnx")
        assert written.input_names == ("parts.a", "parts.b")
        assert written.difference.max_abs < 1e-6


@dataclass
class Boxes:
    boxes: torch.Tensor
    scores: torch.Tensor


class TestOutputsWithoutTensor:
    @pytest.mark.parametrize("prepare", [lambda m: m, lambda m: transform(m, X, patterns=[])])
    def test_are_named(self, tmp_path, prepare):
        model = net(lambda _self, x: (x * 2, {"size": 3, "none": None}))
        with pytest.raises(ExportError, match=r"not a tensor: output\[1\]\['size'\] = 3 \(int\)\. "):
            export_onnx(prepare(model), X, tmp_path / "m.onnx")
        assert entries(tmp_path) == []

    def test_a_dataclass_is_named_without_its_tensors(self, tmp_path):
        model = net(lambda _self, x: Boxes(x * 2, x.sum()))
        with pytest.raises(
            ExportError, match=r"a dataclass Boxes with the fields boxes, scores\. Return a tuple"
        ) as said:
            export_onnx(model, X, tmp_path / "m.onnx")
        assert len(str(said.value)) < 400

    def test_none_is_left_out(self, tmp_path):
        model = net(lambda _self, x: (x * 2, None))
        assert len(export_onnx(model, X, tmp_path / "m.onnx").output_names) == 1


def test_sizes_kept_by_torch_export_are_not_blamed_on_the_model(tmp_path):
    result = transform(conv_net(), X, patterns=PATTERNS, trace="export", dynamic_shapes={})
    with pytest.raises(ExportError, match=r'ransform the model with dynamic_shapes that name.* trace="symbolic"'):
        export_onnx(result, X, tmp_path / "m.onnx", dynamic_batch=True)
    symbolic = transform(conv_net(), X, patterns=PATTERNS, trace="symbolic")
    export_onnx(symbolic, X, tmp_path / "m.onnx", dynamic_batch=True)


def test_what_cannot_be_traced_symbolically_is_not_advised_to_be(tmp_path):
    model = net(lambda m, x: torch.stack([m.conv(part) for part in x.split(2, 0)[:1]]), conv=nn.Conv2d(3, 2, 1))
    result = transform(model, X, patterns=PATTERNS)
    assert result.report["capture"] == "export"
    with pytest.raises(ExportError, match=r"captured by torch\.export, .*Transform the model with dynamic") as said:
        export_onnx(result, X, tmp_path / "m.onnx", dynamic_batch=True)
    assert "symbolic" not in str(said.value)


def test_zeros_around_a_max_pooling_count(tmp_path):
    """ONNX Runtime's own optimization leaves them out; then below zero a border is not zero."""
    model = net(lambda self, x: nn.functional.max_pool2d(nn.functional.pad(x, (0, 1, 0, 1)), 3, 2))
    x = -random_input(1, 2, 4, 4).abs() - 1
    written = export_onnx(model, x, tmp_path / "m.onnx")
    (pooled,) = run_onnx(written.path, x)
    torch.testing.assert_close(pooled, model(x), rtol=0, atol=0)
    assert not pooled[..., 1].any()


def test_a_file_is_run_with_as_many_threads_as_torch_has(tmp_path, monkeypatch):
    path = export_onnx(conv_net(), X, tmp_path / "model.onnx").path
    made = onnxruntime.InferenceSession
    asked = []

    def noted(file, options, **settings):
        asked.append(options.intra_op_num_threads)
        return made(file, options, **settings)

    monkeypatch.setattr(onnxruntime, "InferenceSession", noted)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    run_onnx(path, X)
    assert asked == [3]
