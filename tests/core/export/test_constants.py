"""Constants that a type does not hold: what takes their place, in tensors, in operators that are run, in programs."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from embedl_deploy import export_onnx
from embedl_deploy.export.constants import convert, convert_inputs, fit_tensor, fitting
from embedl_deploy.export.fitting import fit_program
from embedl_deploy.export.operands import FittingSlices
from embedl_deploy.export.operators import Plain, run_operators
from embedl_deploy.export.runtime import run_onnx
from support.nets import net

LOWEST = torch.finfo(torch.float32).min
SMALLEST = 2.0**-24


@pytest.mark.parametrize(
    ("value", "operator", "wanted"),
    [
        (-1e9, "masked_fill", -49152.0),  # 3/4 of 2**16
        (LOWEST, "mul", -49152.0),
        (1e5, "mul", 65504.0),
        (-1e9, "clamp", -65504.0),
        (65504.0, "add", 65504.0),
        (-65504.0, "masked_fill", -49152.0),  # minus infinity in the sum with a score of -16
        (-65504.0, "clamp", -65504.0),
        (-math.inf, "masked_fill", -math.inf),
        (1e-12, "add", SMALLEST),
        (-1e-12, "clamp_min", -SMALLEST),
        (1e-12, "mul", 1e-12),  # a factor may be zero
        (SMALLEST, "add", SMALLEST),
        (0.0, "add", 0.0),
    ],
)
def test_what_takes_its_place(value, operator, wanted):
    assert fitting(value, torch.float16, operator) == wanted


def test_bfloat16_has_the_range_of_float32_but_for_its_end():
    assert fitting(-1e9, torch.bfloat16) == -1e9
    assert fitting(LOWEST, torch.bfloat16) == -float(torch.finfo(torch.bfloat16).max)
    assert fit_tensor(torch.tensor([LOWEST, 1.0]), torch.bfloat16).isfinite().all()


def test_tensors_stay_finite():
    found = fit_tensor(torch.tensor([0.0, -1e9, 7e4, -math.inf, math.nan, 1e-12]), torch.float16)
    assert found[:4].tolist() == [0.0, -49152.0, 65504.0, -math.inf] and found[4].isnan() and found[5] == 0
    assert float(fit_tensor(torch.tensor([1e-12]), torch.float16)) == SMALLEST
    eighths = torch.tensor([448.0, 0.5]).to(torch.float8_e4m3fn)
    assert fit_tensor(eighths, torch.float16).tolist() == [448.0, 0.5]


def test_state_and_inputs_are_told():
    model = net(lambda m, x: x + m.mask, fc=nn.Linear(2, 2))
    model.register_buffer("mask", torch.tensor([0.0, -1e9]))
    (of_mask,) = convert(model, torch.float16)
    assert (of_mask.tensor, of_mask.value, of_mask.by, of_mask.masks) == ("mask", -1e9, -49152.0, True)
    assert model.mask.tolist() == [0.0, -49152.0] and model.fc.weight.dtype is torch.float16
    (x, n), (of_input,) = convert_inputs((torch.tensor([LOWEST]), torch.tensor([1 << 40])), torch.float16)
    assert (x.tolist(), n.dtype, of_input.tensor) == ([-49152.0], torch.int64, "input 0")


def assigned(x, m):
    x = x.clone()
    x[m] = -1e9
    return x


FORMS = {
    "masked_fill": lambda x, m: x.masked_fill(m, -1e9),
    "a condition": lambda x, m: torch.where(m, x, -1e9),
    "a tensor of its own": lambda x, m: torch.where(m, x, torch.tensor(-1e9)),
    "a product": lambda x, m: x + (1.0 - m.to(x.dtype)) * LOWEST,
    "an assignment": assigned,
    "a full mask": lambda x, m: x + torch.full((3, 3), -1e9, dtype=x.dtype).triu(1),
    "a mask that is converted": lambda x, m: x + torch.full((3, 3), -1e9).triu(1).to(x.dtype),
    "the lowest number of the type": lambda x, m: (
        x + torch.full((3, 3), torch.finfo(x.dtype).min, dtype=x.dtype).triu(1)
    ),
    "padding": lambda x, m: F.pad(x, (1, 1), value=-1e9),
    "a norm": lambda x, m: F.normalize(x * 0, eps=1e-12),
    "a quotient": lambda x, m: x * 0 / (x.abs() * 0 + 1e-12),
    "bounds": lambda x, m: x.clamp(-1e9, 1e9),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_program_and_a_run_compute_the_same_finite_numbers(form):
    model = net(lambda _m, x, m: FORMS[form](x, m))
    x, m = torch.randn(3, 3).half(), torch.eye(3) > 0
    (run,) = run_operators(model, (x, m), {}, Plain())
    with torch.no_grad(), (slices := FittingSlices()):
        program = torch.export.export(model, (x, m), strict=False)
    replaced = [*slices.replaced, *fit_program(program)]
    assert replaced and run.isfinite().all()
    wanted = FORMS[form](x.float(), m).clamp(-49152)
    found = program.module()(x, m)
    torch.testing.assert_close(found.float(), wanted, rtol=1e-3, atol=1e-3)


def test_comparisons_and_other_types_keep_theirs():
    model = net(lambda _m, x: (x > 1e9, x.float() * 1e9, torch.arange(0, 1e5, 5e4, device=x.device)))
    program = torch.export.export(model, (torch.ones(2).half(),), strict=False)
    assert fit_program(program) == []
    assert program.module()(torch.ones(2).half())[1].tolist() == [1e9, 1e9]


@pytest.mark.parametrize("form", ["a product", "a full mask", "a mask that is converted", "a buffer"])
def test_what_is_summed_with_a_mask_is_bounded_so_that_all_that_is_masked_is_equal(form):
    model = net(lambda m, x, k: (x + m.mask if form == "a buffer" else FORMS[form](x, k)) * 1.0)
    model.register_buffer("mask", torch.full((3, 3), LOWEST).triu(1))
    replaced = convert(model, torch.float16)
    x, k = 100 * torch.randn(3, 3).half(), torch.ones(3, 3).triu(1) == 0
    program = torch.export.export(model, (x, k), strict=False)
    fit_program(program, replaced if form == "a buffer" else ())
    found = program.module()(x, k)
    assert torch.equal(found[~k], torch.full((3,), -32768.0).half())
    assert torch.equal(found[k], x[k])


class Attention(nn.Module):
    """One head, (N, L, E), with a mask that is added; a row that sees no key has equal weights in float32."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(8, 8) for _ in range(3))

    def forward(self, x, keep):
        scores = self.q(x) @ self.k(x).transpose(1, 2) + (1.0 - keep[:, None, :]) * LOWEST
        return scores.softmax(-1) @ self.v(x)


def test_rows_that_see_nothing_have_equal_weights_in_the_file(tmp_path):
    torch.manual_seed(0)
    model, x, keep = Attention().eval(), 5 * torch.randn(2, 4, 8), torch.ones(2, 4)
    keep[0, 2:], keep[1] = 0, 0
    written = export_onnx(model, (x, keep), tmp_path / "m.onnx", dtype=torch.float16)
    assert written.notes[0].startswith(
        "-3.40282e+38, which float16 cannot hold, is replaced with -49152 in mul of forward"
    )
    (found,) = run_onnx(written.path, x.half(), keep.half())
    wanted = model.v(x[1]).mean(0).detach().expand(4, 8)
    torch.testing.assert_close(found[1].float(), wanted, rtol=2e-3, atol=2e-3)
