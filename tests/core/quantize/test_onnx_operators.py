"""``torch.onnx.export`` on quantized models: the same file as ``export_onnx`` writes, up to names."""

import functools
import itertools

import onnx
import onnxscript
import pytest
import torch
from torch import nn

from embedl_deploy import export_onnx
from embedl_deploy.errors import ExportError
from embedl_deploy.export import run_onnx
from embedl_deploy.quantize import (
    LayerQuantConfig,
    Precision,
    QuantConfig,
    QuantizationRecipe,
    TensorQuantConfig,
    freeze,
    quantization_recipe,
    quantize,
)
from support.nets import random_input
from support.quantizable import IMAGES, OnnxGraph, fused, residual_block

X = random_input(2, 128)
FP8, INT16 = TensorQuantConfig(Precision.FP8), TensorQuantConfig(Precision.INT16)
ASYMMETRIC, BLOCKS = TensorQuantConfig(symmetric=False), TensorQuantConfig(n_bits=4, block_size=16)
#: A format for each layer.
CONFIG = QuantConfig(
    overrides={
        "1": LayerQuantConfig(FP8, TensorQuantConfig(Precision.FP8, per_channel=True)),
        "2": LayerQuantConfig(INT16, TensorQuantConfig(Precision.INT16, per_channel=True)),
        "3": LayerQuantConfig(ASYMMETRIC, ASYMMETRIC),
        "4": LayerQuantConfig(None, BLOCKS),  # 16384 values: torch's optimizer folds no constants of that size
    }
)
OPSET = 21  # of INT16, INT4 and blocks


@functools.cache
def transformed():
    torch.manual_seed(0)
    sizes = (128, 8, 4, 8, 128, 128)
    return fused(nn.Sequential(*(nn.Linear(*pair) for pair in itertools.pairwise(sizes))).eval())


@functools.cache
def quantized():
    return quantize(transformed(), [X], CONFIG).eval()


def exported(model, args, path, **settings):
    """Write a file as every script does, with torch alone."""
    torch.onnx.export(model, args, path, dynamo=True, verbose=False, external_data=False, **settings)
    onnx.checker.check_model(path, full_check=True)
    return path


def expression(path):
    """What a file computes, as nested tuples in which nothing has a name; constants with their types and bytes."""
    graph, file = OnnxGraph(path), onnx.load(path).graph
    inputs = [value.name for value in file.input]

    def of(name):
        if name in graph.constants:
            return graph.type_of(name), graph.constants[name].shape, graph.constants[name].tobytes()
        if name in inputs:
            return inputs.index(name)
        node = graph.producer[name]
        settings = sorted((a.name, repr(onnx.helper.get_attribute_value(a))) for a in node.attribute)
        return node.op_type, tuple(settings), tuple(map(of, node.input))

    return graph.opset, sorted(node.op_type for node in graph.nodes), [of(value.name) for value in file.output]


@pytest.mark.parametrize(("frozen", "shapes"), [(False, ({0: "batch"},)), (True, None)])
def test_the_file_is_that_of_export_onnx(frozen, shapes, tmp_path):
    ours = export_onnx(quantized(), X, tmp_path / "a.onnx", integer_weights=frozen, tolerance=None)
    model = freeze(quantized(), weights=True) if frozen else quantized()
    theirs = exported(model, (X,), tmp_path / "b.onnx", opset_version=OPSET, dynamic_shapes=shapes)
    assert expression(theirs) == expression(ours.path)
    graph = OnnxGraph(theirs)
    assert [graph.type_of(n.input[2]) for n in graph.of("DequantizeLinear")] == [
        *("INT8", "INT8", "FLOAT8E4M3FN", "FLOAT8E4M3FN", "INT16", "INT16", "INT8", "INT8", "INT4")
    ]
    assert graph.attribute(graph.of("DequantizeLinear")[-1], "block_size") == 16
    x = X if shapes is None else random_input(5, 128)
    torch.testing.assert_close(run_onnx(theirs, x)[0], model(x), rtol=0, atol=1e-5)


def test_a_rebuilt_model_as_a_program_of_torch_export(tmp_path):
    rebuilt = QuantizationRecipe.from_json(quantization_recipe(quantized()).to_json()).rebuild(transformed())
    rebuilt.load_state_dict(quantized().state_dict())
    program = torch.export.export(rebuilt.eval(), (X,))
    ours = export_onnx(quantized(), X, tmp_path / "a.onnx", tolerance=None)
    assert expression(exported(program, (), tmp_path / "b.onnx", opset_version=OPSET)) == expression(ours.path)


def test_batch_norms_are_not_frozen_but_quantized_in_the_same_way(tmp_path):
    model = quantize(fused(residual_block(), IMAGES), [IMAGES]).eval()
    graphs = (
        OnnxGraph(export_onnx(model, IMAGES, tmp_path / "a.onnx", tolerance=None).path),
        OnnxGraph(exported(model, (IMAGES,), tmp_path / "b.onnx", opset_version=18)),
    )
    ours, theirs = (
        sorted(
            (n.op_type, graph.type_of(n.input[2]), graph.attribute(n, "axis"), graph.constants[n.input[1]].tobytes())
            for n in graph.of("QuantizeLinear", "DequantizeLinear")
        )
        for graph in graphs
    )
    assert ours == theirs
    torch.testing.assert_close(run_onnx(tmp_path / "b.onnx", IMAGES)[0], model(IMAGES), rtol=0, atol=1e-5)


def test_a_translation_that_is_given_is_used(tmp_path):
    def identity(x, *_settings):
        return onnxscript.opset18.Identity(x)

    table = {torch.ops.embedl_deploy.fake_quantize.default: identity}
    path = exported(quantized(), (X,), tmp_path / "m.onnx", custom_translation_table=table)
    assert not OnnxGraph(path).of("QuantizeLinear", "DequantizeLinear")


def test_an_operator_set_without_the_format_is_refused(tmp_path):
    why = r"The operator set to write for is 20; INT16 needs 21 or more. Call .*opset_version=21"
    with pytest.raises(torch.onnx.OnnxExporterError, match=why):
        exported(quantized(), (X,), tmp_path / "m.onnx", opset_version=20)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_deprecated_exporter_is_refused(tmp_path, capfd):
    with pytest.raises(
        ExportError, match=r"dynamo=False\) has no operators for quantized models.*Leave dynamo=False out"
    ):
        torch.onnx.export(quantized(), (X,), tmp_path / "m.onnx", dynamo=False)
    capfd.readouterr()  # it prints the whole graph
    assert not list(tmp_path.iterdir())
