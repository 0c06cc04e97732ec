"""Reading shards: what is there, and what is wrong with them."""

import json

import pytest
import torch
from safetensors.torch import save_file

from embedl_deploy.errors import InputError, QuantizationError
from embedl_deploy.quantize import QuantConfig
from embedl_deploy.shards import open_shards, quantize_shards, source
from support.layered import batches, layered, on_meta, transformed, write_shards

X = batches(1)[0]
CONFIG = QuantConfig(activation=None)


@pytest.fixture
def weights(tmp_path):
    return write_shards(layered(), tmp_path / "weights")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e4m3fn, torch.int8, torch.bool])
def test_every_value_is_read(tmp_path, monkeypatch, dtype):
    monkeypatch.setattr(source, "_PIECE", 64)  # in many pieces
    tensors = {
        "matrix": torch.randn(37, 5).to(dtype),
        "vector": torch.randn(70).to(dtype),
        "scalar": torch.ones(()).to(dtype),
        "empty": torch.ones(0, 3).to(dtype),
        "long row": torch.randn(2, 100).to(dtype),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    for place in (tmp_path, tmp_path / "model.safetensors"):
        shards = open_shards(place)
        assert shards.bytes == (37 * 5 + 70 + 1 + 200) * dtype.itemsize
        for name, tensor in tensors.items():
            found = shards.read(name)
            assert (found.shape, found.dtype) == (tensor.shape, dtype)
            assert torch.equal(
                found.view(torch.uint8) if found.dim() else found, tensor.view(torch.uint8) if tensor.dim() else tensor
            )
    with pytest.raises(InputError, match="has no tensor 'other'"):
        shards.read("other")


def test_the_fingerprint_tells_weights_apart(tmp_path, weights):
    other = layered()
    before = open_shards(weights).fingerprint()
    assert open_shards(write_shards(other, tmp_path / "same", files=1)).fingerprint() == before
    with torch.no_grad():
        other.last.bias[-1] += 1
    assert open_shards(write_shards(other, tmp_path / "other")).fingerprint() != before
    single = [save_file({"a": torch.tensor(x)}, tmp_path / f"{x}") or tmp_path / f"{x}" for x in (1.0, 2.0)]
    assert len({open_shards(file).fingerprint() for file in single}) == 2


def test_what_are_no_shards(tmp_path, weights):
    with pytest.raises(InputError, match=r"holds neither .*json nor .*; expected"):
        open_shards(tmp_path)
    with pytest.raises(InputError, match="is not there; expected a safetensors file, or a folder with them"):
        open_shards(tmp_path / "nothing")
    (tmp_path / "text").write_text("no tensors")
    with pytest.raises(InputError, match="is not a safetensors file, or it is damaged: "):
        open_shards(tmp_path / "text")
    last = sorted(weights.glob("*.safetensors"))[-1]
    whole = last.read_bytes()
    last.write_bytes(whole[:-10])
    with pytest.raises(InputError, match=f"{last.name}' is not a safetensors file, or it is damaged"):
        open_shards(weights)
    last.unlink()
    with pytest.raises(
        InputError, match=f"{last.name}' is not there; expected a file that model.safetensors.index.json"
    ):
        open_shards(weights)


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ("[", "is not JSON"),
        ("[]", "has no 'weight_map'"),
        ('{"weight_map": {"a": 1}}', "has no 'weight_map'"),
        ('{"weight_map": {"a": "../a.safetensors"}}', "which is not in its folder"),
        ('{"weight_map": {"a": "model-00001-of-00003.safetensors"}}', "has 'a' in 'model-00001-of-00003.safetensors'"),
    ],
)
def test_wrong_indices(weights, index, said):
    (weights / "model.safetensors.index.json").write_text(index)
    with pytest.raises(InputError, match=said):
        open_shards(weights)


def changed(model, folder, change):
    """Shards of a model, with one tensor changed, renamed or left out."""
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    change(state)
    folder.mkdir()
    save_file(state, folder / "model.safetensors")
    return folder


WRONG = {
    r"lacks 1 tensor\(s\) of the model: 'layers.1.up.weight'. Give the folder with the weights": (
        lambda state: state.pop("layers.1.up.weight")
    ),
    r"'last.weight' has the shape \(4, 15\) in .*, and \(4, 16\) in the model": (
        lambda state: state.update({"last.weight": torch.ones(4, 15)})
    ),
    "'first.bias' is torch.float64 in .*, and torch.float32 in the model, which cannot hold it": (
        lambda state: state.update({"first.bias": torch.ones(16, dtype=torch.float64)})
    ),
    "'first.bias' is torch.int8 in": lambda state: state.update({"first.bias": torch.ones(16, dtype=torch.int8)}),
}


@pytest.mark.parametrize("said", WRONG)
def test_weights_of_another_model(tmp_path, said):
    weights = changed(layered(), tmp_path / "w", WRONG[said])
    with pytest.raises(InputError, match=said):
        quantize_shards(on_meta(X), weights, tmp_path / "out", config=CONFIG)
    assert not (tmp_path / "out").exists()


def test_narrower_types_are_widened(tmp_path):
    model = layered()
    weights = changed(model, tmp_path / "w", lambda state: state.update({n: t.bfloat16() for n, t in state.items()}))
    quantize_shards(on_meta(X), weights, tmp_path / "narrow", config=CONFIG)
    wide = write_shards(model.bfloat16().float(), tmp_path / "wide weights")
    quantize_shards(on_meta(X), wide, tmp_path / "wide", config=CONFIG)
    for file in (tmp_path / "wide").iterdir():
        assert file.read_bytes() == (tmp_path / "narrow" / file.name).read_bytes()


def test_a_buffer_that_no_checkpoint_has(tmp_path):
    class WithTable(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inside = torch.nn.Linear(12, 4)
            self.register_buffer("table", torch.arange(4.0), persistent=False)

        def forward(self, x):
            return self.inside(x) * self.table

    weights = write_shards(WithTable(), tmp_path / "w", files=1)
    with torch.device("meta"):
        empty = WithTable().eval()
    with pytest.raises(InputError, match="'table' is a buffer that no checkpoint has"):
        quantize_shards(transformed(empty, X), weights, tmp_path / "out", config=CONFIG)
    empty.table = torch.arange(4.0)
    report = quantize_shards(transformed(empty, X), weights, tmp_path / "out", config=CONFIG)
    assert json.loads(json.dumps(report.to_dict()))["blocks"][0]["name"] == "the model"


def test_weights_that_are_in_the_model_and_in_the_shards_are_refused(tmp_path, weights):
    with pytest.raises(InputError, match=r"'first.weight' and 23 more of the model have values, and .* has others"):
        quantize_shards(transformed(layered(), X), weights, tmp_path / "out", config=CONFIG)
    assert not (tmp_path / "out").exists()


def test_other_names_in_the_shards_are_told(tmp_path):
    weights = changed(layered(), tmp_path / "w", lambda state: state.update({"head.bias": state.pop("last.bias")}))
    with pytest.raises(
        InputError, match=r"'last\.bias'\. .* under the names of its state_dict; it has 'head.bias' beside"
    ):
        quantize_shards(on_meta(X), weights, tmp_path / "out", config=CONFIG)


@pytest.mark.parametrize("into", ["the weights", "other tensors"])
def test_tensors_in_the_folder_are_not_replaced(tmp_path, weights, into):
    folder = weights if into == "the weights" else tmp_path / "out"
    if folder != weights:
        folder.mkdir()
        save_file({"a": torch.ones(1)}, folder / "model-00001-of-00005.safetensors")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(
        InputError, match=r"holds 'model-00001-of-0000\d.safetensors'.*which no interrupted run has left"
    ):
        quantize_shards(on_meta(X), weights, folder, config=CONFIG)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("amount", [lambda x: x.sum(), lambda _: 1], ids=["in the graph", "beside it"])
def test_a_model_that_keeps_a_cache_is_refused(tmp_path, amount):
    class Counting(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inside = torch.nn.Linear(12, 4)
            self.register_buffer("calls", torch.zeros(4))

        def forward(self, x):
            return self.inside(x) + self.calls.add_(amount(x))

    weights = write_shards(Counting(), tmp_path / "w", files=1)
    with torch.device("meta"):
        empty = Counting().eval()
    with pytest.raises(QuantizationError, match=r"writes to 'calls' when it runs.* model\.config\.use_cache = False"):
        quantize_shards(transformed(empty, X), weights, tmp_path / "out", config=CONFIG)


def test_batches_at_which_the_model_fails_are_named(tmp_path):
    class Words(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.inside = torch.nn.Embedding(4, 12), torch.nn.Linear(12, 4)

        def forward(self, x):
            return self.inside(self.table(x))

    weights = write_shards(Words(), tmp_path / "w", files=1)
    fits, beyond = torch.tensor([[0, 3]]), torch.tensor([[0, 4]])
    with torch.device("meta"):
        empty = Words().eval()
    with pytest.raises(QuantizationError, match="Batch 2 of the calibration data makes the model raise IndexError"):
        quantize_shards(transformed(empty, fits), weights, tmp_path / "out", [fits, beyond], blocks="inside")
    quantize_shards(transformed(empty, fits), weights, tmp_path / "out", [fits, fits])  # nothing was left there


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"smooth_quant": True}, "smooth_quant needs calibration data"),
        ({"learned_rounding": True}, "learned_rounding needs calibration data"),
        ({"data": lambda model: model(X)}, "data is the function <lambda>; expected an iterable"),
        ({"data": X}, "data is a tensor, float32.*; expected an iterable"),
        ({"data": []}, "calibration data is empty"),
        ({"data": [X, X.numpy()]}, "Batch 2 of the calibration data cannot be used"),
        ({"data": [{"y": X}]}, "Batch 1 of the calibration data cannot be used"),
        ({"blocks": "model.layers.*", "config": CONFIG}, r"blocks='model.layers.\*': no module"),
        ({}, "quantize_shards needs calibration data: an iterable of batches. It finds the ranges of "),
    ],
)
def test_wrong_arguments(tmp_path, weights, arguments, said):
    with pytest.raises(InputError, match=said):
        quantize_shards(on_meta(X), weights, tmp_path / "out", **arguments)
