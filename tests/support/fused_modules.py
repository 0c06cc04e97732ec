"""What holds of every fused module, whatever it computes."""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import nn

from embedl_deploy.modules import FusedModule, QuantStub, symbolic_trace
from support.agreement import assert_close, run
from support.nets import scrambled
from support.quantizers import RoundTo


def check_fused_module(
    fused: FusedModule, reference: Callable[..., object], originals: nn.Module, inputs: Sequence[torch.Tensor]
) -> None:
    """Check a fused module against what it stands for.

    Args:
        fused: The module under test. Its parameters and statistics are scrambled, and those of ``originals`` with them,
            since they are the same.
        reference: What it stands for, as a function of the inputs.
        originals: Holds the original modules, for their running statistics.
        inputs: What both are called with.
    """
    scrambled(fused)
    for training in (False, True):
        fused.train(training), originals.train(training)
        start = copy.deepcopy(fused.state_dict())
        wanted = reference(*(x.clone() for x in inputs))
        statistics = copy.deepcopy(originals.state_dict())
        fused.load_state_dict(start)
        got = run(fused, inputs)
        assert_close(got, wanted, 0.0)
        assert_close(originals.state_dict(), statistics, 0.0)
    fused.eval()
    duplicate = copy.deepcopy(fused)
    assert not {id(p) for p in duplicate.parameters()} & {id(p) for p in fused.parameters()}
    assert_close(run(duplicate, inputs), run(fused, inputs), 0.0)
    scrambled(duplicate, seed=5)
    duplicate.load_state_dict(fused.state_dict())
    assert_close(run(duplicate, inputs), run(fused, inputs), 0.0)
    assert set(fused.input_quant_stubs) in (set(type(fused).inputs_to_quantize), set())
    assert not any(stub.enabled for stub in fused.modules() if isinstance(stub, QuantStub))
    traced = symbolic_trace(nn.Sequential(fused))
    assert [node.op for node in traced.graph.nodes].count("call_module") == 1, "a tracer keeps it whole"


def check_input_stubs(
    fused: FusedModule, reference: Callable[..., object], inputs: Sequence[torch.Tensor], positions: Sequence[int]
) -> None:
    """A quantizer in the stub of each position is called once, and its result is what is computed with."""
    fused.eval()
    plain = run(fused, inputs)
    assert sorted(fused.input_quant_stubs) == list(positions)
    for position in positions:
        quantizer = RoundTo()
        stub = fused.input_quant_stubs[position]
        stub.quantizer = quantizer
        got = run(fused, inputs)
        assert quantizer.calls == 1
        changed = [quantizer.round(x) if i == position else x.clone() for i, x in enumerate(inputs)]
        assert_close(got, reference(*changed), 1e-6)
        assert not _same(got, plain), "the quantizer made no difference"
        stub.quantizer = None
    assert _same(run(fused, inputs), plain)


def _same(a: object, b: object) -> bool:
    leaves = [torch.utils._pytree.tree_leaves(value) for value in (a, b)]
    return all(torch.equal(x, y) for x, y in zip(*leaves, strict=True))


def check_weight_stub(fused: FusedModule, weight: nn.Parameter, inputs: Sequence[torch.Tensor]) -> None:
    """A quantizer of the weight is called once, and computing with it equals computing with the rounded weight."""
    fused.eval()
    plain, quantizer = run(fused, inputs), RoundTo(0.25)
    fused.weight_fake_quant.quantizer = quantizer
    quantized = run(fused, inputs)
    assert quantizer.calls == 1
    fused.weight_fake_quant.quantizer = None
    original = weight.detach().clone()
    with torch.no_grad():
        weight.copy_(quantizer.round(original))
    assert_close(quantized, run(fused, inputs), 1e-6)
    with torch.no_grad():
        weight.copy_(original)
    assert not _same(quantized, plain), "the quantizer made no difference"
    assert _same(run(fused, inputs), plain)
