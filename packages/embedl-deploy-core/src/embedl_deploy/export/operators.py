"""Runs a model operator by operator, with the module of each operator."""

from typing import Any

import torch
from torch import fx, nn
from torch.utils._python_dispatch import TorchDispatchMode

from embedl_deploy.capture.user_code import running_line
from embedl_deploy.export.failures import in_words, users_line
from embedl_deploy.export.operands import FittingSlices, fit_call, name_of
from embedl_deploy.graph.inputs import bind_inputs
from embedl_deploy.graph.metadata import module_path_of
from embedl_deploy.verify import output_tensors, run_unchanged

aten: Any = torch.ops.aten


class Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]  # of torch
    """Sees every operator of a model, and knows which module it is in."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # of torch
        self.stored: dict[int, str] = {}
        self.paths: list[str] = []
        self.node: fx.Node | None = None

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.operate(func, args, kwargs or {})

    def operate(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Compute the operator; what it returns is its result."""
        raise NotImplementedError

    def computed(self, node: fx.Node, value: Any) -> None:
        """Called with the value of each node of a graph, once it is computed."""

    def place(self, func: Any) -> str:
        """The module and operator, in words."""
        name = name_of(func)
        path, node = next((path for path in reversed(self.paths) if path), ""), self.node
        if node is None:
            source, code = running_line(_Placed.forward.__code__)
            line = "" if source is None else f"{source}: {code}"
            return f"what {name} computes{in_words(path, line).removeprefix(',') or ' in the model itself'}"
        if path:
            return f"what {name} computes in module {path!r}"
        return (
            f"what {node.name!r} ({name}) computes{in_words(module_path_of(node), users_line(node)).removeprefix(',')}"
        )


def compute(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call an operator as a file has it: with constants that fit, and of equal values those of a lower index first."""
    return _in_order_of_index(func, *fit_call(func, args, kwargs))


def writes(func: Any) -> bool:
    """Whether an operator writes to what it is given."""
    return isinstance(func, torch._ops.OpOverload) and func._schema.is_mutable


def shows(func: Any) -> bool:
    """Whether what an operator gives is a view of what it is given."""
    return isinstance(func, torch._ops.OpOverload) and func.is_view


class Plain(Operators):  # type: ignore[no-untyped-call]  # of torch
    """Computes operators as a file has them, and nothing else."""

    def operate(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Compute an operator."""
        return compute(func, args, kwargs)


def run_operators(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], operators: Operators
) -> list[torch.Tensor]:
    """The outputs of a model whose operators are computed by ``operators``. The model is not changed."""
    with FittingSlices():
        return output_tensors(run_unchanged(_Placed(model, operators), args, kwargs))


def _in_order_of_index(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call an operator; of equal values those of a lower index come first."""
    if func is aten.topk.default:
        settings: tuple[Any, ...] = (-1, True)
        x, k, dim, largest = args[:4] + settings[len(args) - 2 :]
        values, indices = aten.sort.stable(x, stable=True, dim=dim, descending=largest)
        return values.narrow(dim, 0, k).contiguous(), indices.narrow(dim, 0, k).contiguous()
    if func is aten.sort.default:
        settings = (-1, False)
        x, dim, descending = args + settings[len(args) - 1 :]
        return aten.sort.stable(x, stable=True, dim=dim, descending=descending)
    return func(*args, **kwargs)


class _Placed(nn.Module):
    """A model that tells where it is."""

    def __init__(self, model: nn.Module, operators: Operators) -> None:
        super().__init__()
        self.model = model
        self.operators = operators

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        operators, model = self.operators, self.model
        state = (*model.named_parameters(), *model.named_buffers())
        operators.stored = {id(tensor): name for name, tensor in state}
        inputs = enumerate(output_tensors((args, kwargs)))
        operators.stored |= {id(tensor): f"input {index}" for index, tensor in inputs}
        handles = []
        for path, module in model.named_modules():
            handles.append(module.register_forward_pre_hook(lambda *_, path=path: operators.paths.append(path)))
            handles.append(module.register_forward_hook(lambda *_: (operators.paths.pop(), None)[1]))
        try:
            with operators:
                if not isinstance(model, fx.GraphModule):
                    return model(*args, **kwargs)
                walk = _NodeByNode(model, operators)
                return walk.run(*bind_inputs(model, args, kwargs), enable_io_processing=False)
        finally:
            for handle in handles:
                handle.remove()


class _NodeByNode(fx.Interpreter):
    def __init__(self, model: fx.GraphModule, operators: Operators) -> None:
        super().__init__(model)
        self.operators = operators

    def run_node(self, n: fx.Node) -> Any:
        self.operators.node = n
        value = super().run_node(n)
        self.operators.computed(n, value)
        return value
