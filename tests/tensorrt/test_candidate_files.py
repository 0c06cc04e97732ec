"""The files and models of candidates, against what an export and a quantization of each gives."""

import onnx_ir as ir
import pytest
import torch
from torch import nn

from embedl_deploy import export_onnx
from embedl_deploy.artifact import read_onnx
from embedl_deploy.quantize import QuantConfig, quantization_report, quantize
from embedl_deploy.quantize.reporting.report import PointReport
from embedl_deploy.sensitivity.layers import layers_of
from embedl_deploy.sensitivity.partly import PartlyQuantized
from embedl_deploy.sensitivity.with_points import with_points
from embedl_deploy.tuning.decisions import policy_of
from embedl_deploy.tuning.file_digest import digest_of
from embedl_deploy.tuning.files import Files
from embedl_deploy.tuning.units import by_layer, units_of
from support.tunable import FP8, Residual, transformed


class Attention(nn.Module):
    """A transformer's block: products whose weights are transposed in the file, and a softmax."""

    def __init__(self):
        super().__init__()
        self.norm, self.attention = nn.LayerNorm(16), nn.MultiheadAttention(16, 2, batch_first=True)
        self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16)

    def forward(self, x):
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.down(nn.functional.gelu(self.up(x)))


NETWORKS = {"residual": (Residual, (2, 3, 8, 8)), "attention": (Attention, (2, 5, 16))}


@pytest.fixture(scope="module", params=NETWORKS)
def network(request):
    return transformed(*NETWORKS[request.param])


def nodes_of(path):
    """What a file computes: operators, attributes and constants, without names of values."""
    graph, names = ir.load(path).graph, {}
    for place, node in enumerate(graph):
        names.update({output.name: (place, index) for index, output in enumerate(node.outputs)})

    def value(given):
        if given is None or given.name in names:
            return None if given is None else names[given.name]
        constant = given.const_value
        return given.name if constant is None else (constant.dtype, tuple(constant.shape), constant.tobytes())

    return [
        (
            node.op_type,
            [value(each) for each in node.inputs],
            sorted((k, str(a.value)) for k, a in node.attributes.items()),
        )
        for node in graph
    ]


@pytest.mark.parametrize("seed", range(2))
def test_a_file_with_some_quantizers_is_what_an_export_gives(network, tmp_path, seed):
    result, x = network
    everything = quantize(result, [x], progress=False)
    report = quantization_report(everything)
    units = units_of(layers_of(everything, report))
    off = frozenset().union(*(unit.points for unit in units[seed::2]))
    policy = policy_of(report.points, dict.fromkeys(off, "for the test"))
    some = quantize(result, [x], QuantConfig(policy=policy), progress=False)

    def export(model, path):
        export_onnx(model, x, path, dtype=torch.float16, tolerance=None)

    export(some, tmp_path / "wanted.onnx")
    on = frozenset(report.quantized) - off
    files = Files(everything, units, {}, tmp_path, export)
    files.fitting(on).write(tmp_path / "found.onnx", on)

    assert 0 < len(quantization_report(some).quantized) < len(report.quantized)
    assert nodes_of(tmp_path / "found.onnx") == nodes_of(tmp_path / "wanted.onnx")


def test_a_file_with_two_formats_is_what_an_export_gives(network, tmp_path):
    result, x = network
    everything = quantize(result, [x], progress=False)
    report = quantization_report(everything)
    model = quantize(result, [x], FP8, progress=False)
    points = quantization_report(model).quantized
    others = {point: model.get_submodule(point.stub).quantizer for point in points}
    units = units_of(layers_of(everything, report), {"FP8": points})
    chosen = frozenset[PointReport]()
    for index, unit in enumerate(units):
        chosen |= (unit.points, unit.others.get("FP8", unit.points), frozenset())[index % 3]
    off = frozenset().union(*(unit.points for unit in units[2::3]))
    in_fp8 = [point for point in chosen if point in others]
    policy = policy_of(report.points, dict.fromkeys(off, "for the test"), in_fp8, "tensorrt")
    some = quantize(result, [x], policy.config(), progress=False)

    def export(model, path):
        return export_onnx(model, x, path, dtype=torch.float16, tolerance=None)

    export(some, tmp_path / "wanted.onnx")
    files = Files(everything, units, others, tmp_path, export)
    files.fitting(chosen).write(tmp_path / "found.onnx", chosen)

    found = {(point.path, point.label): point.format for point in quantization_report(some).quantized}
    assert found == {(point.path, point.label): point.format for point in chosen}
    assert {given.precision.name for given in found.values()} == {"INT8", "FP8"}
    assert sorted(operators(tmp_path / "found.onnx")) == sorted(operators(tmp_path / "wanted.onnx"))
    assert digest_of(read_onnx(tmp_path / "found.onnx")) == digest_of(read_onnx(tmp_path / "wanted.onnx"))
    layers = layers_of(everything, report)
    with torch.no_grad():
        candidate = PartlyQuantized(everything, by_layer(layers, chosen), others)
        torch.testing.assert_close(candidate(x), some(x))
        assert torch.equal(with_points(everything, by_layer(layers, chosen), others)(x), candidate(x))


class Twice(nn.Module):
    """One convolution in two places, with a ReLU behind the first: two fused modules with one weight."""

    def __init__(self):
        super().__init__()
        self.conv, self.other = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x):
        return self.other(self.conv(torch.relu(self.conv(x))))


def test_layers_that_share_a_weight_decide_together(tmp_path):
    result, x = transformed(Twice, (2, 8, 8, 8))
    everything = quantize(result, [x], progress=False)
    report = quantization_report(everything)
    units = units_of(layers_of(everything, report))
    off = next(unit for unit in units if any(point.label == "weight" for point in unit.points))
    assert len({point.path for point in off.points}) == 2
    on = frozenset(report.quantized) - off.points
    policy = policy_of(report.points, dict.fromkeys(off.points, "for the test"))

    def export(model, path):
        return export_onnx(model, x, path, dtype=torch.float16, tolerance=None)

    export(quantize(result, [x], policy.config(), progress=False), tmp_path / "wanted.onnx")
    Files(everything, units, {}, tmp_path, export).fitting(on).write(tmp_path / "found.onnx", on)
    assert digest_of(read_onnx(tmp_path / "found.onnx")) == digest_of(read_onnx(tmp_path / "wanted.onnx"))


def operators(path):
    return [node.op_type for node in ir.load(path).graph]


@pytest.mark.parametrize("seed", range(3))
def test_what_a_users_measure_is_given_is_a_graph_that_computes_the_candidate(network, seed):
    result, x = network
    everything = quantize(result, [x], progress=False)
    layers = layers_of(everything, quantization_report(everything))
    units = units_of(layers)
    on = frozenset().union(*(unit.points for at, unit in enumerate(units) if (at + seed) % 3))
    points = by_layer(layers, on)
    before, count = everything(x), len(everything.graph.nodes)
    candidate = with_points(everything, points)
    assert torch.equal(candidate(x), PartlyQuantized(everything, points)(x))
    assert not torch.equal(candidate(x), before)
    assert torch.equal(with_points(everything, {layer: layer.points for layer in layers})(x), before)
    assert torch.equal(with_points(everything, {})(x), PartlyQuantized(everything, {})(x))
    assert {node.op for node in candidate.graph.nodes} == {node.op for node in everything.graph.nodes}
    assert (torch.equal(everything(x), before), len(everything.graph.nodes)) == (True, count)


def test_a_files_digest_is_of_what_it_computes(tmp_path):
    result, x = transformed(Residual, (2, 3, 8, 8))
    path = export_onnx(result, x, tmp_path / "a.onnx").path
    model = ir.load(path)
    for index, node in enumerate(model.graph):
        for output in node.outputs:
            if output not in model.graph.outputs:
                output.name = f"other_{index}"
    assert digest_of(model) == digest_of(ir.load(path))
    weight = next(value for value in model.graph.initializers.values() if len(value.shape) == 4)
    weight.const_value = ir.Tensor(weight.const_value.numpy() * 2)
    assert digest_of(model) != digest_of(ir.load(path))
    other = export_onnx(result, x, tmp_path / "b.onnx", dtype=torch.float16).path
    assert digest_of(ir.load(other)) != digest_of(ir.load(path))
