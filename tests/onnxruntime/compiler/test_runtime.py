"""ONNX Runtime as a compiler: what its engines are made of, and what they compute."""

import json
import logging
from pathlib import Path

import onnx
import onnx_ir as ir
import pytest
import torch
from torch import nn

from embedl_deploy import compile, export_onnx, transform, verify_stages  # noqa: A004
from embedl_deploy.backend import CompileOptions, CompilerRefusedError
from embedl_deploy.compiling import benchmark, load_engine, run_engine
from embedl_deploy.engine import EngineReport, LayerKind, compare
from embedl_deploy.errors import CompileError, InputError
from embedl_deploy.quantize import quantize
from embedl_deploy_onnxruntime import DYNAMIC
from embedl_deploy_onnxruntime.compiler import ONNXRuntime, processor, running, runtime
from support.nets import random_input
from support.onnx_files import OnnxFile

X = random_input(1, 16, 12, 12)
INT64, BFLOAT16 = ir.DataType.INT64, ir.DataType.BFLOAT16


class Net(nn.Module):
    """Convolutions with a sum and activation functions, a depthwise one, a linear layer."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.block = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16))
        self.depthwise = nn.Conv2d(16, 16, 3, groups=16)
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        x = self.stem(x)
        x = torch.relu(self.block(x) + x)
        x = nn.functional.hardswish(self.depthwise(x))
        return self.head(x.mean((2, 3)))


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture(scope="module")
def built(net, tmp_path_factory):
    """The network's file and its engine."""
    path = tmp_path_factory.mktemp("engine") / "net.onnx"
    export_onnx(transform(net, X, backend="onnxruntime"), X, path, dynamic_batch=True)
    return path, compile(path, backend="onnxruntime", threads=1, shapes={"x": ((1, 16, 12, 12),) * 3})


def test_it_computes_what_the_model_computes(net, built):
    x = random_input(3, 16, 12, 12)  # another batch than it was timed with
    engine = load_engine(built[1].path, backend="onnxruntime")
    assert [tensor.shape for tensor in engine.inputs] == [(-1, 16, 12, 12)]
    for inputs in (x, [x], {"x": x}):
        (found,) = engine.run(inputs).values()
        torch.testing.assert_close(found, net(x), atol=1e-5, rtol=1e-4)
    with pytest.raises(InputError, match=r"are 'x': 'x' missing; 'image' not known"):
        engine.run({"image": x})


def test_verify_stages_includes_the_running_engine(net, built):
    file, result = built
    found = verify_stages(net, X, {"file": file, "engine": result.path}, backend="onnxruntime")
    assert [stage.name for stage in found.stages] == ["file", "engine"]
    assert all(stage.sqnr > 90 for stage in found.stages)


def test_every_kernel_is_timed_and_knows_its_modules(built):
    report = built[1].report
    assert built[1].path.name == "net.ort.engine"
    assert EngineReport.load(built[1].report_path) == report
    assert report.compiler.startswith("ONNX Runtime ") and report.target == processor.processor_here()
    assert report.timing.threads == 1 and report.timing.runs >= 5
    assert all(layer.seconds is not None for layer in report.layers)
    assert sum(layer.seconds for layer in report.layers) < 10 * report.timing.quartiles[1]
    weighted = [layer for layer in report.layers if layer.kind.is_weighted]
    assert [layer.kind for layer in weighted] == [LayerKind.CONVOLUTION] * 3 + [LayerKind.GEMM]
    assert {layer.precision for layer in weighted} == {"float32"}
    modules = [" ".join(layer.modules) for layer in weighted]
    assert all(part in text for part, text in zip(("stem", "block", "depthwise", "head"), modules, strict=True))
    # 2 × outputs × inputs of a window, of each convolution, and of the linear layer
    wanted = [2 * 16 * 144 * 144, 2 * 16 * 144 * 144, 2 * 16 * 100 * 9, 2 * 5 * 16]
    assert [layer.operations for layer in weighted] == wanted
    (first, *_) = weighted
    assert [tensor.shape for tensor in first.outputs] == [(1, 16, 12, 12)]
    assert sorted(tensor.shape for tensor in first.constants) == [(16,), (16, 16, 3, 3)]


def test_every_node_of_the_file_is_in_a_kernel(built):
    file, result = built
    inside = {name for layer in result.report.layers for name in layer.onnx_nodes}
    assert inside == {node.name for node in onnx.load(file).graph.node}
    noted = [prop.value for node in onnx.load(result.path).graph.node for prop in node.metadata_props]
    assert {name for names in noted for name in json.loads(names)} == inside


def test_an_engine_can_be_timed_with_other_threads(built):
    one, two = (benchmark(built[1].path, X, backend="onnxruntime", seconds=0.02, threads=count) for count in (1, 2))
    assert (one.threads, two.threads) == (1, 2)
    by_default = benchmark(built[1].path, X, backend="onnxruntime", seconds=0.02)
    assert by_default.threads == torch.get_num_threads()


def test_threads_are_those_of_this_process_where_none_are_asked_for(built, tmp_path):
    before = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            result = compile(built[0], tmp_path / "net.engine", backend="onnxruntime")
            assert result.report.timing.threads == count
    finally:
        torch.set_num_threads(before)


def test_milliseconds_decide_between_two_engines(built, tmp_path):
    slower = compile(
        built[0],
        tmp_path / "slower.engine",
        backend="onnxruntime",
        threads=1,
        shapes={"x": ((1, 16, 12, 12), (16, 16, 12, 12), (16, 16, 12, 12))},
    ).report
    found = compare(slower, built[1].report)
    assert found.milliseconds_decide and found.is_worth_it
    assert " × as fast." in found.verdict
    assert slower.usual_shapes == "x 16×16×12×12"


def test_open_dimensions_are_one_unless_shapes_say_more(tmp_path):
    f = OnnxFile()
    x, y = f.input("batch", 8), f.input("batch", "other")
    ir.save(f.model(f.node("MatMul", f.node("Transpose", x, perm=[1, 0]), y)), tmp_path / "open.onnx")
    report = compile(tmp_path / "open.onnx", backend="onnxruntime", threads=1).report
    assert report.usual_shapes == "x0 1×8, x1 1×1"
    assert any("open dimensions were taken as 1 to time it: x0 1×8, x1 1×1" in said for said in report.messages)
    shapes = {"x0": ((1, 8), (4, 8), (9, 8))}
    report = compile(tmp_path / "open.onnx", backend="onnxruntime", threads=1, shapes=shapes).report
    assert report.usual_shapes == "x0 4×8, x1 4×1"  # the dimension of the same name has the same size
    with pytest.raises(InputError, match=r"but the input has the shape \?×8"):
        compile(tmp_path / "open.onnx", backend="onnxruntime", shapes={"x0": ((1, 7),) * 3})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workspace": 10, "refit": True}, "ONNX Runtime has no option workspace, refit; leave it out"),
        ({"timing_cache": "cache"}, "ONNX Runtime has no option timing_cache"),
        ({"strip_weights": True}, "ONNX Runtime has no option strip_weights"),
        ({"target": "sm89"}, r"target is 'sm89'; ONNX Runtime optimizes for the processor in this machine, '\w"),
        ({"optimization_level": 7}, r"optimization_level is 7; ONNX Runtime has 0 \(ORT_DISABLE_ALL\)"),
        ({"threads": 0}, "threads is 0; expected a positive number"),
        ({"threads": 100_000}, "threads is 100000; expected at most 1024"),
    ],
)
def test_options_that_do_not_fit_are_named(built, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        compile(built[0], tmp_path / "net.engine", backend="onnxruntime", **options)
    assert not (tmp_path / "net.engine").exists()


def test_the_architecture_is_target_enough_and_lower_levels_leave_the_layout(built, tmp_path):
    target = processor.processor_here().split("-avx")[0].split("-i8mm")[0]
    result = compile(
        built[0], tmp_path / "net.engine", backend="onnxruntime", target=target, optimization_level=2, threads=1
    )
    assert result.report.target == processor.processor_here()
    assert not any(layer.type.startswith("nchwc.") for layer in result.report.layers)


def test_engines_for_other_processors_and_other_files_are_not_run(built, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "processor_here", lambda: "arm64-i8mm")
    with pytest.raises(CompileError, match=r"compiled for the processor .*, and the one in this machine is arm64-i8mm"):
        run_engine(built[1].path, X, backend="onnxruntime")
    with pytest.raises(CompileError, match=r"net\.onnx is a model, but no engine of ONNX Runtime: compile it first"):
        run_engine(built[0], X, backend="onnxruntime")
    (tmp_path / "broken.ort.engine").write_bytes(b"engine")
    with pytest.raises(CompileError, match=r"broken\.ort\.engine cannot be loaded by ONNX Runtime: .*INVALID_PROTOBUF"):
        run_engine(tmp_path / "broken.ort.engine", X, backend="onnxruntime")


def test_an_engine_of_another_version_that_cannot_be_loaded_says_so(built, tmp_path):
    model = onnx.load(built[1].path, format="protobuf")
    (version,) = (each for each in model.metadata_props if each.key.endswith(".version"))
    version.value = "1.2.3"
    model.graph.node[0].op_type = "NotAnyMore"
    old = tmp_path / "old.ort.engine"
    old.write_bytes(model.SerializeToString())
    with pytest.raises(CompileError, match=r"It was compiled with ONNX Runtime 1\.2\.3, and .* is installed: compile"):
        run_engine(old, X, backend="onnxruntime")


def branch(*, tanh, exp):
    """A graph of two nodes that reads x0 of the graph around it."""
    inner = [
        onnx.helper.make_node("Tanh", ["x0"], ["a"], name=tanh),
        onnx.helper.make_node("Exp", ["a"], ["b"], name=exp),
    ]
    return onnx.helper.make_graph(inner, "branch", [], [onnx.helper.make_tensor_value_info("b", 1, [2])])


def test_nodes_inside_others_are_not_taken_for_those_of_the_same_name_outside(tmp_path):
    value = onnx.helper.make_tensor_value_info
    branches = {name: branch(tanh="first", exp="last") for name in ("then_branch", "else_branch")}
    nodes = [
        onnx.helper.make_node("Tanh", ["x0"], ["y"], name="first"),
        onnx.helper.make_node("If", ["x1"], ["z"], name="choice", **branches),
        onnx.helper.make_node("Add", ["y", "z"], ["w"], name="last"),
    ]
    graph = onnx.helper.make_graph(nodes, "net", [value("x0", 1, [2]), value("x1", 9, [])], [value("w", 1, [2])])
    opsets = [onnx.helper.make_opsetid("", 20)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=10), tmp_path / "net.onnx")
    result = compile(tmp_path / "net.onnx", backend="onnxruntime", threads=1)
    layers = [(layer.name, layer.type) for layer in result.report.layers]
    assert layers[-1] == ("last", "Add")  # which ran last, not before the If as the Exp in it
    assert sorted(layers) == [("choice", "If"), ("first", "Tanh"), ("last", "Add")]
    written = onnx.load(result.path, format="protobuf").graph.node
    inside = [each.name for node in written for attribute in node.attribute for each in attribute.g.node]
    assert len({*inside, *(node.name for node in written)}) == len(inside) + 3


def test_a_file_that_computes_nothing_is_compiled(tmp_path):
    f = OnnxFile()
    y = f.node("Add", f.constant([1.0, 2.0]), f.constant([3.0, 4.0]))
    ir.save(f.model(y), tmp_path / "net.onnx")
    result = compile(tmp_path / "net.onnx", backend="onnxruntime", threads=1)
    assert result.report.layers == ()
    assert run_engine(result.path, [], backend="onnxruntime")["Add_0_0"].tolist() == [4.0, 6.0]


def test_an_output_that_numpy_cannot_hold_is_refused_with_what_to_do(tmp_path):
    f = OnnxFile()
    y = f.node("Cast", f.input(2), to=int(BFLOAT16))
    ir.save(f.model(y, dtype=BFLOAT16), tmp_path / "net.onnx")
    with pytest.raises(CompileError, match=r"numpy, which does not have their type\. Export them in float32"):
        compile(tmp_path / "net.onnx", backend="onnxruntime", threads=1)


def test_an_operator_without_a_kernel_is_named(tmp_path):
    f = OnnxFile(opset=22)
    x = f.input(1, 4, dtype=BFLOAT16)
    ir.save(f.model(f.node("Cos", x), dtype=BFLOAT16), tmp_path / "none.onnx")
    with pytest.raises(CompileError, match="It says: ") as refused:
        compile(tmp_path / "none.onnx", backend="onnxruntime")
    assert "refuses none.onnx" in str(refused.value)
    assert "At: ONNX node 'Cos_0' (Cos)" in str(refused.value)
    assert "no kernel for this operator in these types" in str(refused.value)


def test_a_run_that_fails_says_with_which_shapes(tmp_path):
    f = OnnxFile()
    x = f.input("batch", "width")
    ir.save(f.model(f.node("Reshape", x, f.constant([2, -1], INT64))), tmp_path / "net.onnx")
    with pytest.raises(CompileError, match=r"run with the inputs x0 1×1\. Pass the usual shapes"):
        compile(tmp_path / "net.onnx", backend="onnxruntime")


def test_more_weights_than_one_file_holds_are_refused(built, monkeypatch):
    monkeypatch.setattr(runtime, "_MOST_BYTES", 100)
    with pytest.raises(CompilerRefusedError, match="weights take more than 2 GB") as refused:
        ONNXRuntime().build(built[0], CompileOptions(), lambda *step: None)
    assert "integer_weights=True" in refused.value.advice
    assert "run the ONNX file itself" in refused.value.advice


def test_the_timeout_is_kept_by_the_core(built, tmp_path):
    with pytest.raises(CompileError, match=r"took longer than its timeout of 0\.001 s"):
        compile(built[0], tmp_path / "net.engine", backend="onnxruntime", timeout=0.001)
    assert list(tmp_path.iterdir()) == []


def test_it_logs_nothing_and_leaves_nothing_behind(built, tmp_path, monkeypatch, capfd, caplog):
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.INFO):
        ONNXRuntime().build(built[0], CompileOptions(threads=1), lambda *step: None)
    assert capfd.readouterr() == ("", "") and not caplog.records
    assert list(Path().iterdir()) == []


def test_what_stays_in_float_beside_ranges_of_each_call_has_a_reason(tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv1d(4, 4, 3, padding=1), nn.Linear(8, 8)).eval()
    x = torch.randn(2, 4, 8)
    export_onnx(quantize(transform(net, x, backend="onnxruntime"), config=DYNAMIC), x, tmp_path / "m.onnx")
    report = compile(tmp_path / "m.onnx", backend="onnxruntime", threads=1).report
    ((module, reason),) = [(layer.module, layer.reason) for layer in report.float_layers]
    assert module == "0.conv" and "policy onnxruntime's 'dynamic'" in reason
