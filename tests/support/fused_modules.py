"""What holds of every fused module, whatever it computes."""

import copy
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import fx, nn

from embedl_deploy.backend import PointKind, QuantPoint
from embedl_deploy.modules import FusedModule, QuantStub, symbolic_trace
from embedl_deploy.quantize import QuantConfig, insert_qdq
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
    fused: FusedModule,
    reference: Callable[..., object],
    inputs: Sequence[torch.Tensor],
    positions: Sequence[int],
    *,
    scaled: Mapping[int, float] = MappingProxyType({}),
) -> None:
    """The module declares these positions, and quantizing one of them is computing with the rounded input.

    Args:
        fused: The module under test.
        reference: What it stands for.
        inputs: What both are called with.
        positions: Those that are declared.
        scaled: Positions whose stub stands inside, where the input has been multiplied by a factor, and the factor.
    """
    fused.eval()
    plain = run(fused, inputs)
    assert sorted(fused.input_quant_stubs) == list(positions)
    model = called_once(fused, len(inputs))
    for position in positions:
        quantized, quantizer = _with_input_quantizer(model, position)
        got, factor = run(quantized, inputs), scaled.get(position, 1.0)
        assert quantizer.calls == 1
        changed = [quantizer.round(x * factor) / factor if i == position else x.clone() for i, x in enumerate(inputs)]
        assert_close(got, reference(*changed), 1e-6)
        assert not _same(got, plain), "the quantizer made no difference"
    assert _same(run(fused, inputs), plain)
    assert not any(stub.enabled for stub in fused.input_quant_stubs.values()), "the module itself is not changed"


def called_once(module: nn.Module, inputs: int) -> fx.GraphModule:
    """A graph that calls a module, as ``part``, on its inputs, and does nothing else."""
    graph = fx.Graph()
    arguments = tuple(graph.placeholder(f"x{index}") for index in range(inputs))
    graph.output(graph.call_module("part", arguments))
    return fx.GraphModule(nn.ModuleDict({"part": module}), graph)


def _with_input_quantizer(model: fx.GraphModule, position: int) -> tuple[fx.GraphModule, RoundTo]:
    def only_that(point: QuantPoint) -> str | None:
        return None if point.kind is PointKind.INPUT and point.index == position else "another position"

    quantized = insert_qdq(model, config=QuantConfig(policy=only_that))
    (stub,) = (part for part in quantized.modules() if isinstance(part, QuantStub) and part.enabled)
    stub.quantizer = RoundTo()
    return quantized, stub.quantizer


def _same(a: object, b: object) -> bool:
    leaves = [torch.utils._pytree.tree_leaves(value) for value in (a, b)]
    return all(torch.equal(x, y) for x, y in zip(*leaves, strict=True))


def check_weight_stub(
    fused: FusedModule, weight: nn.Parameter, inputs: Sequence[torch.Tensor], bn: nn.BatchNorm2d | None = None
) -> None:
    """A quantizer of the weight is called once, and computing with it equals computing with the rounded weight.

    What is rounded is the weight with the factor of ``bn`` in it, in training mode too, where the batch's statistics
    come on top of that.
    """
    factor = torch.tensor(1.0) if bn is None else (bn.weight / (bn.running_var + bn.eps).sqrt()).detach()
    factor = factor.reshape(-1, *(1,) * (weight.dim() - 1)).clone()
    for training in (False, True):
        fused.train(training)
        start, original = copy.deepcopy(fused.state_dict()), weight.detach().clone()
        plain = run(fused, inputs)
        fused.load_state_dict(start)
        fused.weight_fake_quant.quantizer = quantizer = RoundTo(0.25)
        quantized = run(fused, inputs)
        statistics = _running_statistics(fused)
        assert quantizer.calls == 1
        fused.weight_fake_quant.quantizer = None
        fused.load_state_dict(start)
        with torch.no_grad():
            weight.copy_(quantizer.round(original * factor) / factor)
        assert_close(quantized, run(fused, inputs), 1e-5)
        after = fused.state_dict()
        assert_close(
            {k: v for k, v in statistics.items() if "running" in k}, {k: after[k] for k in after if "running" in k}
        )
        fused.load_state_dict(start)
        assert not _same(quantized, plain), "the quantizer made no difference"
        assert _same(run(fused, inputs), plain)
        fused.load_state_dict(start)


def _running_statistics(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: buffer.clone() for name, buffer in module.named_buffers() if "running" in name}
