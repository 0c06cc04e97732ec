"""Fingerprints, equal in every process: of a graph's structure, and of the values of tensors."""

import hashlib
from collections.abc import Iterable
from typing import Any

import torch
from torch import fx, nn


def _describe_target(target: Any) -> str:
    if isinstance(target, str):
        return target
    return f"{getattr(target, '__module__', '')}.{getattr(target, '__qualname__', getattr(target, '__name__', target))}"


def _describe_module(module: nn.Module) -> str:
    tensors = [(name, tuple(p.shape)) for name, p in (*module.named_parameters(), *module.named_buffers())]
    return f"{type(module).__module__}.{type(module).__qualname__}({module.extra_repr()}){tensors}"


def _describe_argument(value: Any) -> str:
    if isinstance(value, fx.Node):
        return f"%{value.name}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_describe_argument, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{k}: {_describe_argument(v)}' for k, v in value.items())}}}"
    if isinstance(value, slice):
        return f"slice({_describe_argument([value.start, value.stop, value.step])})"
    if callable(value):
        return _describe_target(value)
    return repr(value)


def fingerprint(graph_module: fx.GraphModule) -> str:
    """SHA-256 over operations, arguments, module settings and parameter shapes; not over weight values."""
    digest = hashlib.sha256()
    for node in graph_module.graph.nodes:
        line = f"{node.name}|{node.op}|{_describe_target(node.target)}|{_describe_argument([*node.args])}"
        line += f"|{_describe_argument(dict(node.kwargs))}"
        if node.op == "call_module":
            line += "|" + _describe_module(graph_module.get_submodule(str(node.target)))
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def tensors_fingerprint(values: Iterable[tuple[str, torch.Tensor]]) -> str:
    """SHA-256 over names, types, shapes and values of tensors."""
    digest = hashlib.sha256()
    for name, tensor in values:
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}\n".encode())
        if flat.numel():
            digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()
