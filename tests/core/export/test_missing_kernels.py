"""Files with operators that ONNX Runtime has no 16-bit kernel for are run in float32, rounded after every operator."""

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from embedl_deploy import export_onnx
from embedl_deploy.errors import ExportError
from embedl_deploy.export import run_onnx

LAW = torch.Generator().manual_seed(0)
X, W = torch.randn(3, 4, generator=LAW).bfloat16(), torch.randn(4, 5, generator=LAW).bfloat16()


def write(path, nodes, inputs, outputs, constants=()):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(*each) for each in inputs],
        [helper.make_tensor_value_info(*each) for each in outputs],
        [helper.make_tensor(name, kind, shape, values) for name, kind, shape, values in constants],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(onnx.shape_inference.infer_shapes(model), path)
    return path


def test_each_result_in_bfloat16_is_rounded(tmp_path):
    """A sum whose first addend makes the second vanish: in float32 throughout it would be 1 and not 0."""
    kind = TensorProto.BFLOAT16
    path = write(
        tmp_path / "m.onnx",
        [helper.make_node("Add", ["x", "large"], ["sum"]), helper.make_node("Sub", ["sum", "large"], ["y"])],
        [("x", kind, [2])],
        [("y", kind, [2])],
        [("large", kind, [1], [1024.0])],
    )
    (found,) = run_onnx(path, torch.tensor([1.0, 8.0]).bfloat16())
    assert found.dtype is torch.bfloat16
    assert found.tolist() == [0.0, 8.0]


def test_a_value_that_is_an_output_and_read_as_well(tmp_path):
    kind = TensorProto.BFLOAT16
    path = write(
        tmp_path / "m.onnx",
        [helper.make_node("MatMul", ["x", "w"], ["p"]), helper.make_node("Relu", ["p"], ["r"])],
        [("x", kind, [3, 4])],
        [("p", kind, [3, 5]), ("r", kind, [3, 5])],
        [("w", kind, [4, 5], W.float().flatten().tolist())],
    )
    product, positive = run_onnx(path, X)
    wanted = (X.float() @ W.float()).bfloat16()
    assert torch.equal(product, wanted)
    assert torch.equal(positive, wanted.relu())


class Messages(nn.Module):
    """What a graph's nodes get from their neighbours."""

    def forward(self, x, edges):
        return torch.zeros_like(x).index_add(0, edges[1], x[edges[0]])


def test_sums_into_rows_in_float16(tmp_path):
    """ONNX Runtime's ScatterND loads in float16, and fails when it adds."""
    x, edges = torch.randn(3, 2, generator=LAW), torch.tensor([[0, 1, 2, 2], [2, 2, 0, 2]])
    written = export_onnx(Messages(), (x, edges), tmp_path / "m.onnx", dtype=torch.float16)
    assert any("lacks a CPU kernel" in note for note in written.notes)
    (found,) = run_onnx(written.path, x.half(), edges)
    assert found.dtype is torch.float16
    wanted = torch.stack([x[2], torch.zeros(2), x[0] + x[1] + x[2]])
    torch.testing.assert_close(found.float(), wanted, rtol=0, atol=2**-8)


def test_what_fails_in_float32_too_is_told_as_it_was(tmp_path):
    path = write(
        tmp_path / "m.onnx",
        [helper.make_node("Gather", ["x", "i"], ["y"], name="picked")],
        [("x", TensorProto.FLOAT16, [3]), ("i", TensorProto.INT64, [1])],
        [("y", TensorProto.FLOAT16, [1])],
    )
    with pytest.raises(ExportError, match=r"fails in .*m\.onnx.*out of (data )?bounds"):
        run_onnx(path, torch.zeros(3).half(), torch.tensor([7]))


def test_a_missing_kernel_of_another_type_is_told(tmp_path):
    path = write(
        tmp_path / "m.onnx",
        [helper.make_node("Relu", ["x"], ["y"])],
        [("x", TensorProto.INT16, [2])],
        [("y", TensorProto.INT16, [2])],
    )
    with pytest.raises(ExportError, match=r"no CPU kernel .* pass tolerance=None"):
        run_onnx(path, torch.tensor([1, 2]).short())
