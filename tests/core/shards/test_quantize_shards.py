"""A model that is quantized block by block is, bit for bit, the one that is quantized in memory."""

import pytest
import torch

from embedl_deploy.errors import InputError
from embedl_deploy.quantize import (
    Precision,
    QuantConfig,
    TensorQuantConfig,
    quantization_report,
    quantize,
)
from embedl_deploy.shards import open_shards, quantize_shards
from support.as_in_memory import check_as_in_memory
from support.layered import batches, layered, on_meta, transformed, write_shards

DATA = batches()
INT4 = QuantConfig(activation=None, weight=TensorQuantConfig(Precision.INT4, block_size=8))
DYNAMIC = TensorQuantConfig(Precision.UINT8, symmetric=False, dynamic=True)
CASES = {
    "INT4 in groups, without data": (None, INT4, {}),
    "dynamic activations, without data": (None, QuantConfig(activation=DYNAMIC), {}),
    "INT8": (DATA, None, {}),
    "NVFP4": (DATA, QuantConfig(TensorQuantConfig(Precision.NVFP4), TensorQuantConfig(Precision.NVFP4)), {}),
    "NVFP4, without data": (None, QuantConfig(activation=None, weight=TensorQuantConfig(Precision.NVFP4)), {}),
    "biases corrected": (DATA, None, {"bias_correction": True}),
    "INT4, rounding learned": (DATA, INT4, {"learned_rounding": True}),
}


@pytest.mark.parametrize("case", CASES)
def test_as_in_memory(tmp_path, case):
    check_as_in_memory(tmp_path, *CASES[case])


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
