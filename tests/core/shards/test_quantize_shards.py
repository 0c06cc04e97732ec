"""A model that is quantized block by block is, bit for bit, the one that is quantized in memory."""

import json

import pytest
import torch

from embedl_deploy.errors import InputError
from embedl_deploy.quantize import (
    CalibrationMethod,
    Precision,
    QuantConfig,
    SmoothQuantConfig,
    TensorQuantConfig,
    quantization_recipe,
    quantization_report,
    quantize,
)
from embedl_deploy.shards import load_quantized, open_shards, quantize_shards
from support.layered import batches, layered, on_meta, transformed, write_shards

DATA = batches()
INT4 = QuantConfig(activation=None, weight=TensorQuantConfig(Precision.INT4, block_size=8))
DYNAMIC = TensorQuantConfig(Precision.UINT8, symmetric=False, dynamic=True)
PERCENTILE = TensorQuantConfig(calibration_method=CalibrationMethod.PERCENTILE)
CASES = {
    "INT4 in groups, without data": (None, INT4, {}),
    "dynamic activations, without data": (None, QuantConfig(activation=DYNAMIC), {}),
    "INT8": (DATA, None, {}),
    "INT8, one batch": (DATA[:1], None, {}),
    "percentile, as a generator": (DATA, QuantConfig(activation=PERCENTILE), {}),
    "FP8": (DATA, QuantConfig(TensorQuantConfig(Precision.FP8), TensorQuantConfig(Precision.FP8)), {}),
    "smoothed": (DATA, None, {"smooth_quant": True}),
    "smoothed by a strength": (DATA, None, {"smooth_quant": SmoothQuantConfig(0.5)}),
    "smoothed, one batch": (DATA[:1], None, {"smooth_quant": True}),
    "biases corrected": (DATA, None, {"bias_correction": True}),
    "INT4, rounding learned": (DATA, INT4, {"learned_rounding": True}),
    "smoothed, rounding learned": (DATA, None, {"smooth_quant": True, "learned_rounding": True}),
    "smoothed, rounding learned, more samples than are recorded": (
        batches(5, samples=20),
        None,
        {"smooth_quant": True, "learned_rounding": True},
    ),
}


def same_tensors(one, other):
    assert one.keys() == other.keys()
    assert [name for name in one if one[name].dtype != other[name].dtype] == []
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def plain(recipe):
    return {
        key: sorted(map(str, value)) if isinstance(value, list) else value
        for key, value in json.loads(recipe.to_json()).items()
    }


@pytest.mark.parametrize("case", CASES)
def test_as_in_memory(tmp_path, case):
    data, config, methods = CASES[case]
    model = layered()
    in_memory, empty = transformed(model, DATA[0]), on_meta(DATA[0])
    wanted = quantize(in_memory, data, config, **methods, judged_by="layers", freeze_weights=True, progress=False)
    given = iter(data) if "generator" in case else data
    weights = write_shards(model, tmp_path / "weights")
    report = quantize_shards(empty, weights, tmp_path / "out", given, config, **methods, progress=False)

    for result in (in_memory, empty):  # the weights that are there are not looked at
        loaded = load_quantized(result, tmp_path / "out")
        same_tensors(wanted.state_dict(), loaded.state_dict())
        assert torch.equal(wanted(DATA[0]), loaded(DATA[0]))
        assert plain(quantization_recipe(wanted)) == plain(quantization_recipe(loaded))
    found, expected = report.quantization, quantization_report(wanted)
    assert (found.points, found.uncovered, found.corrections) == (
        expected.points,
        expected.uncovered,
        expected.corrections,
    )
    assert sorted(map(str, found.findings)) == sorted(map(str, expected.findings))
    names = ["before layers.0", "layers.0", "layers.1", "layers.2", "after layers.2"]
    assert [block.name for block in report.blocks] == names


def test_what_is_in_the_folder(tmp_path):
    report = quantize_shards(on_meta(DATA[0]), write_shards(layered(), tmp_path / "w"), tmp_path / "out", config=INT4)
    shards = [f"model-0000{i}-of-00005.safetensors" for i in range(1, 6)]
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {*shards, "model.safetensors.index.json", "recipe.json", "constants.safetensors"}
    written = open_shards(tmp_path / "out")
    assert written.bytes == sum(block.bytes_written for block in report.blocks)
    assert written.tensors["layers.1.up.weight_fake_quant.quantizer.values"].dtype == torch.int8
    assert str(report).startswith("5 blocks, 11.3 kB of weights to ")  # 2828 numbers of four bytes
    assert report.to_dict()["blocks"][1]["file"] == shards[1]


def test_it_is_judged_by_layers_where_that_is_asked(tmp_path):
    result = transformed(layered(), DATA[0])
    for by, told in (("model", True), ("layers", False)):
        model = quantize(result, DATA, smooth_quant=True, learned_rounding=True, judged_by=by, progress=False)
        corrections = quantization_report(model).corrections
        assert any(correction.is_of_the_model for correction in corrections) is told
    with pytest.raises(InputError, match="judged_by is 'layer'; expected 'model' or 'layers'"):
        quantize(result, DATA, judged_by="layer")
