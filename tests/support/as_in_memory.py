"""What is quantized from shards, against what is quantized in memory."""

import json

import torch

from embedl_deploy.quantize import quantization_recipe, quantization_report, quantize
from embedl_deploy.shards import load_quantized, quantize_shards
from support.layered import batches, layered, on_meta, transformed, write_shards

DATA = batches()


def same_tensors(one, other):
    assert one.keys() == other.keys()
    assert [name for name in one if one[name].dtype != other[name].dtype] == []
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def plain(recipe):
    return {
        key: sorted(map(str, value)) if isinstance(value, list) else value
        for key, value in json.loads(recipe.to_json()).items()
    }


def check_as_in_memory(folder, data, config, methods, *, generator=False):
    model = layered()
    in_memory, empty = transformed(model, DATA[0]), on_meta(DATA[0])
    wanted = quantize(in_memory, data, config, **methods, judged_by="layers", freeze_weights=True, progress=False)
    given = iter(data) if generator else data
    weights = write_shards(model, folder / "weights")
    report = quantize_shards(empty, weights, folder / "out", given, config, **methods, progress=False)

    for result in (in_memory, empty):  # the weights that are there are not looked at
        loaded = load_quantized(result, folder / "out")
        same_tensors(wanted.state_dict(), loaded.state_dict())
        assert torch.equal(wanted(DATA[0]), loaded(DATA[0]))
        assert [name for name, buffer in loaded.named_buffers() if buffer.is_meta] == []
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
