"""Runs a quantized model node by node with float and with quantized values in parallel."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx, nn

from embedl_deploy.graph.effects import Effects
from embedl_deploy.graph.inputs import BoundInterpreter, bind_inputs
from embedl_deploy.modules import FusedModule, NamedWeight, QuantStub
from embedl_deploy.quantize.calibration.recorded_inputs import Inputs
from embedl_deploy.verify import state_kept


class _Walk(BoundInterpreter):
    """One run of a graph, a node at a time, which changes nothing of the model: what it writes to is its own."""

    def __init__(self, model: fx.GraphModule, inputs: Inputs, written: frozenset[str]) -> None:
        super().__init__(model, garbage_collect_values=False)
        self.args_iter = iter(bind_inputs(model, *inputs))
        self._written = {name: self.fetch_attr(name).clone() for name in written}

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        """A tensor of the model, or this run's own, if the graph writes to it."""
        own = self._written.get(target)
        return super().get_attr(target, args, kwargs) if own is None else own

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        """Call a module; one of the user's may count its calls, and does not here."""
        module = self.fetch_attr(target)
        if isinstance(module, FusedModule) or type(module).__module__.startswith("torch."):
            return super().call_module(target, args, kwargs)
        with state_kept(module, random_numbers=False) as state:
            return state.apart(super().call_module(target, args, kwargs))

    def compute(self, node: fx.Node) -> None:
        self.env[node] = None if node.op == "output" else self.run_node(node)


class SideBySide:
    """The values of a model, exact and quantized, at one node after the other.

    Between a node's exact values and its quantized ones the caller may correct the node's module; later nodes see the
    values of the corrected module.

    Args:
        model: A calibrated model.
        inputs: Runs of it.
        beside: Other runs of it, by which the same modules are corrected: originals are kept for both.
        until: Nodes whose values are wanted for longer than they are read, and the nodes up to which they are.
        rounded: What the quantized model is given in place of ``inputs``, if that is something else.
    """

    def __init__(
        self,
        model: fx.GraphModule,
        inputs: Sequence[Inputs],
        beside: "SideBySide | None" = None,
        until: Mapping[fx.Node, fx.Node] | None = None,
        rounded: Sequence[Inputs] | None = None,
    ) -> None:
        self.model = model
        written = Effects(model.graph).written_attributes()
        self._exact = [_Walk(model, run, written) for run in inputs]
        self._quantized = [_Walk(model, run, written) for run in (inputs if rounded is None else rounded)]
        self._originals: dict[nn.Module, dict[str, nn.Parameter | None]] = {} if beside is None else beside._originals
        last_use = {used: node for node in model.graph.nodes for used in node.all_input_nodes}
        order = {node: i for i, node in enumerate(model.graph.nodes)}
        self._no_longer_read: dict[fx.Node, list[fx.Node]] = {}
        for used, wanted in {**last_use, **(until or {})}.items():
            last = max(wanted, last_use.get(used, wanted), key=order.__getitem__)
            self._no_longer_read.setdefault(last, []).append(used)

    def module_of(self, node: fx.Node) -> nn.Module | None:
        """The module that a node calls."""
        return self.model.get_submodule(str(node.target)) if node.op == "call_module" else None

    def keep_original(self, operator: nn.Module) -> bool:
        """Go on computing exact values with the weight and bias of today; whether that is new."""
        if operator in self._originals:
            return False
        self._originals[operator] = {
            name: operator._parameters[name] for name in ("weight", "bias") if name in operator._parameters
        }
        return True

    def original(self, operator: nn.Module) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Weight and bias that exact values are computed with."""
        kept = self._originals[operator]
        weight, bias = kept.get("weight", operator.weight), kept.get("bias")
        assert isinstance(weight, torch.Tensor)  # an operator has one
        return weight.detach(), None if bias is None else bias.detach()

    def compute_exact(self, node: fx.Node) -> None:
        """Compute a node's exact values, in all runs."""
        with self.without_quantization(self.module_of(node)):
            for walk in self._exact:
                walk.compute(node)

    def compute_quantized(self, node: fx.Node) -> None:
        """Compute a node's quantized values, in all runs."""
        for walk in self._quantized:
            walk.compute(node)

    def values(self, node: fx.Node) -> Iterator[tuple[Any, Any]]:
        """A node's exact and quantized values, of each run."""
        for exact, quantized in zip(self._exact, self._quantized, strict=True):
            yield exact.env[node], quantized.env[node]

    def operator_inputs(self, node: fx.Node, weight: NamedWeight) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """What flows into the operator of a weight in a node's module: exact and quantized, in each run.

        Empty if the module does not call the operator, even where its weight is not quantized.
        """
        assert weight.operator is not None  # the caller has looked
        found = []
        for exact, quantized in zip(self._exact, self._quantized, strict=True):
            with self.without_quantization(self.module_of(node)):
                before = _caught(exact, node, weight.operator)
            with emptied(weight.stub):
                after = _caught(quantized, node, weight.operator)
            if before is None or after is None:
                return []
            found.append((before, after))
        return found

    def outputs_of(self, node: fx.Node, part: nn.Module) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """The outputs of a part of a node's module: exact and quantized, at each call in each run.

        Empty if the module does not call the part, or if its output is not a tensor.
        """
        found: list[tuple[torch.Tensor, torch.Tensor]] = []
        for exact, quantized in zip(self._exact, self._quantized, strict=True):
            with self.without_quantization(self.module_of(node)):
                before = _given(exact, node, part)
            found += zip(before, _given(quantized, node, part), strict=True)
        return found

    def forget(self, node: fx.Node) -> None:
        """Release the values that no later node reads."""
        for used in self._no_longer_read.get(node, ()):
            for walk in (*self._exact, *self._quantized):
                walk.env.pop(used, None)

    @contextmanager
    def tried(self) -> Iterator[None]:
        """Within the block nodes may be computed again; afterwards their values are those of before."""
        walks = [(walk, dict(walk.env)) for walk in (*self._exact, *self._quantized)]
        try:
            yield
        finally:
            for walk, values in walks:
                walk.env = values

    def compute_observed(self, node: fx.Node) -> None:
        """Compute a node's exact values with what its module is now, in all runs, by quantizers that observe."""
        for walk in self._exact:
            walk.compute(node)

    @contextmanager
    def without_quantization(self, module: nn.Module | None) -> Iterator[None]:
        """Within the block, the stubs in ``module`` are empty and its weights are those before any correction."""
        parts = [] if module is None else list(module.modules())
        corrected = [(part, dict(part._parameters)) for part in parts if part in self._originals]
        with emptied(*(part for part in parts if isinstance(part, QuantStub))):
            for operator, _ in corrected:
                operator._parameters.update(self._originals[operator])
            try:
                yield
            finally:
                for operator, parameters in corrected:
                    operator._parameters.update(parameters)


@contextmanager
def emptied(*stubs: QuantStub) -> Iterator[None]:
    """Within the block, the given stubs are empty."""
    quantizers = [(stub, stub.quantizer) for stub in stubs]
    for stub in stubs:
        stub.quantizer = None
    try:
        yield
    finally:
        for stub, quantizer in quantizers:
            stub.quantizer = quantizer


class _Reached(Exception):  # noqa: N818 - no error: it ends a call when the operator's input is known
    """Carries what flows into an operator."""

    def __init__(self, value: torch.Tensor) -> None:
        super().__init__()
        self.value = value


def _caught(walk: _Walk, node: fx.Node, operator: nn.Module) -> torch.Tensor | None:
    """The operator's input when the node is computed."""

    def stop(_operator: nn.Module, args: tuple[Any, ...]) -> None:
        raise _Reached(args[0])

    handle = operator.register_forward_pre_hook(stop)
    try:
        walk.run_node(node)
    except _Reached as reached:
        return reached.value
    finally:
        handle.remove()
    return None


def _given(walk: _Walk, node: fx.Node, part: nn.Module) -> list[torch.Tensor]:
    """What a part gives at each call when the node is computed."""
    given: list[torch.Tensor] = []

    def note(_part: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        if isinstance(output, torch.Tensor):
            given.append(output)

    handle = part.register_forward_hook(note)
    try:
        walk.run_node(node)
    finally:
        handle.remove()
    return given
