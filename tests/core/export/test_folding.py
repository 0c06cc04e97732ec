"""Constants that are computed of constants."""

import onnx
import pytest
import torch
from torch import nn

from embedl_deploy import export_onnx
from embedl_deploy.export import run_onnx
from support.nets import net, random_input

TABLE = random_input(31, 4)
PLACES = torch.arange(128)[:, None] // 5 + torch.arange(128)[None, :] // 32  # from 0 to 28


def with_table() -> nn.Module:
    """Adds a table of relative positions, (128, 128, 4), to scores of four heads: 65536 numbers."""
    return net(
        lambda m, x: x + m.table[m.places.reshape(-1)].reshape(128, 128, 4).permute(2, 0, 1)[None],
        table=nn.Parameter(TABLE),
        places=PLACES,
    )


@pytest.mark.parametrize("options", [{}, {"dtype": torch.float16}, {"dynamic_batch": True}], ids=str)
def test_a_table_of_positions_is_one_constant(options, tmp_path):
    model, x = with_table(), random_input(1, 4, 128, 128)
    export_onnx(model, x, tmp_path / "a.onnx", **options)
    graph = onnx.load(tmp_path / "a.onnx").graph
    assert [node.op_type for node in graph.node] == ["Add"]
    assert [list(tensor.dims) for tensor in graph.initializer] == [[1, 4, 128, 128]]
    (found,) = run_onnx(tmp_path / "a.onnx", x.to(options.get("dtype", torch.float32)))
    torch.testing.assert_close(found.float(), model(x), rtol=0, atol=1e-2 if "dtype" in options else 1e-6)


def test_what_would_make_the_file_much_larger_is_left(tmp_path):
    """4096 ones are not written out as 16 million."""
    model = net(lambda m, x: x + m.row.expand(4096, 4096), row=nn.Parameter(torch.ones(1, 4096)))
    export_onnx(model, torch.zeros(4096, 1), tmp_path / "a.onnx")
    assert (tmp_path / "a.onnx").stat().st_size < 1e5
