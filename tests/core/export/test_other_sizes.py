"""Files with open dimensions are correct for every size."""

import pytest
import torch
from torch import nn

from embedl_deploy import export_onnx
from embedl_deploy.errors import ExportError
from embedl_deploy.export import run_onnx
from embedl_deploy.export.other_sizes import _of_size, _other_sizes
from support.nets import random_input


class Asking(nn.Module):
    """Computes something else for batches that ``asks`` says yes to."""

    def __init__(self, asks):
        super().__init__()
        self.fc, self.asks = nn.Linear(4, 4), asks

    def forward(self, x):
        return self.fc(x) * 2 if self.asks(x.shape[0]) else self.fc(x)


@pytest.mark.parametrize(
    ("asks", "example", "size"), [(lambda n: n == 1, 1, 1), (lambda n: n == 1, 3, 1), (lambda n: n > 3, 2, 5)]
)
def test_a_branch_on_the_batch_is_refused(asks, example, size, tmp_path):
    file = tmp_path / "m.onnx"
    words = (
        f"correct for every size of batch. With {size} it does not compute what the model computes.*Nothing was writ"
    )
    with pytest.raises(ExportError, match=words):
        export_onnx(Asking(asks).eval(), random_input(example, 4), file, dynamic_batch=True)
    assert not file.exists()
    export_onnx(Asking(asks).eval(), random_input(example, 4), file)


def test_a_sequence_in_the_place_of_the_batch_is_refused(tmp_path):
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.RNN(4, 4, 2)  # of which torch's exporter writes out each step

        def forward(self, x):
            return self.rnn(x)[0]

    with pytest.raises(ExportError, match="The model fixes dimensions that should be open: dimension 0 of 'x' is 2"):
        export_onnx(Recurrent().eval(), random_input(2, 3, 4), tmp_path / "m.onnx", dynamic_batch=True)


def test_a_batch_that_the_model_does_not_take_is_left_out(tmp_path):
    class Two(nn.Module):
        def forward(self, x):
            if torch.jit.is_scripting() or x.shape[0] < 2:
                raise ValueError("two or more")
            return x - x.mean(0)

    written = export_onnx(Two().eval(), random_input(2, 4), tmp_path / "m.onnx", dynamic_batch=True)
    assert written.difference.max_abs < 1e-6


class Halves(nn.Module):
    """Of twice as many columns as ``y`` has; of others, something else."""

    def forward(self, x, y):
        columns = y.shape[1]
        return x[:, :columns] * y if x.shape[1] == 2 * columns else x[:, :1] * y


COLUMNS = torch.export.Dim("columns", min=2, max=64)


def test_a_size_that_is_computed_from_another_follows_it(tmp_path):
    inputs = (random_input(2, 8), random_input(2, 4))
    shapes = {"x": {1: 2 * COLUMNS}, "y": {1: COLUMNS}}
    written = export_onnx(Halves(), inputs, tmp_path / "m.onnx", dynamic_shapes=shapes)
    assert written.difference.max_abs < 1e-6


@pytest.mark.parametrize(
    ("dims", "shapes", "sizes"),
    [
        ([2 * COLUMNS, COLUMNS], [(2, 8), (2, 4)], {(4, 2), (18, 9)}),
        ([COLUMNS + 1, COLUMNS], [(2, 5), (2, 4)], {(3, 2), (10, 9)}),
        ([torch.export.Dim.AUTO(min=3, max=6), {}], [(2, 4), (2, 4)], {(3, 4), (6, 4)}),
        ([COLUMNS - 1, {}], [(2, 3), (2, 4)], {(1, 4), (8, 4)}),
    ],
)
def test_sizes_are_those_that_the_user_allows(dims, shapes, sizes):
    inputs = [torch.zeros(shape) for shape in shapes]
    places = [{1: dim} if dim != {} else {} for dim in dims]
    found = {tuple(x.shape[1] for x in _of_size(inputs, places, size)) for size in _other_sizes(inputs, places)}
    assert found == sizes


@pytest.mark.parametrize(
    ("limits", "factor", "wanted"),
    [
        ({"max": 8}, 32, (32, 256)),  # torch says 0 to 256: of no width, which no engine takes
        ({"min": 1, "max": 8}, 32, (32, 256)),
        ({"min": 2, "max": 8}, 32, (64, 256)),
        ({"max": 200}, 1, (1, 200)),
        ({"min": 3, "max": 200}, 1, (3, 200)),
    ],
)
def test_the_smallest_multiple_is_a_multiple(tmp_path, limits, factor, wanted):
    size = torch.export.Dim("w", **limits)
    asked = {"input": {3: size if factor == 1 else factor * size}}
    model, x = torch.nn.Conv2d(3, 4, 3, padding=1).eval(), torch.randn(1, 3, 8, 64)
    written = export_onnx(model, x, tmp_path / "m.onnx", dynamic_shapes=asked)
    smallest, usual, largest = written.shapes["input"]
    assert (smallest[3], usual[3], largest[3]) == (wanted[0], 64, wanted[1])
    least = torch.randn(smallest)
    assert torch.allclose(run_onnx(written.path, least)[0], model(least), atol=1e-5)
