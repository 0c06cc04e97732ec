"""What the model's forward does to the model while it is traced: no part of the graph, and taken back.

Tracing runs the model's Python code once, on a copy. What the code assigns to attributes happens there and then, with
proxies for values; what it writes into buffers, without a traced value involved, likewise.
"""

from typing import Any

import torch
from torch import fx, nn

from embedl_deploy.errors import CaptureError

#: Attributes of every module that hold others.
_TABLES = frozenset({"_buffers", "_modules", "_parameters"})

_NUMBERS = (bool, int, float)
#: How torch.fx names the tensors of a graph that are neither parameters nor buffers.
_CONSTANT = "_tensor_constant"


class SideEffects:
    """The state of a model before it is traced.

    Args:
        model: The copy that is traced.

    Attributes:
        kept: Paths of the attributes and buffers that held traced values.
        written: Paths of the buffers that were written into.
    """

    def __init__(self, model: nn.Module) -> None:
        self.kept: dict[str, None] = {}
        self.written: dict[str, None] = {}
        self._model = model
        self._attributes = {path: dict(vars(module)) for path, module in model.named_modules()}
        self._buffers = {name: (buffer, buffer._version) for name, buffer in model.named_buffers()}

    def has_written(self) -> bool:
        """Whether buffers are other ones now, or have been written into."""
        return bool(self._written_buffers())

    def put_back(self, original: nn.Module) -> None:
        """Put back attributes and buffers that hold traced values, and what was written into buffers."""
        self.kept.update(dict.fromkeys(self._forget_proxies()))
        self.written.update(dict.fromkeys(self._undo_writes(original)))

    def take_back(self, original: nn.Module, graph: fx.Graph, changed: list[str]) -> tuple[str, ...]:
        """Undo what would be wrong or in the way later.

        Args:
            original: The model that the copy was made of.
            graph: What was traced.
            changed: Paths of the attributes that are other ones after the trace.

        Returns:
            What the user should know.

        Raises:
            CaptureError: The graph depends on a buffer that forward sets: its next call would start from the new value.
        """
        self.put_back(original)
        self._put_numbers_back()
        kept, written, others = list(self.kept), list(self.written), self.others(changed)
        read = {str(node.target) for node in graph.nodes if node.op == "get_attr"}
        if any(name.startswith(_CONSTANT) and name not in self._attributes[""] for name in read):
            read.update(written)  # a tensor that was computed during tracing may have been computed from any of them
        state = next(
            (name for name in (*kept, *written) if name in self._buffers and (name in kept or name in read)), None
        )
        if state is not None:
            raise depends_on_state(original, f"sets the buffer {state!r} and computes with it", state)
        notes = []
        if written:
            notes.append(f"the model's forward writes into {_quoted(written)}; that is not part of the graph")
        if kept:
            notes.append(f"the model's forward keeps values in {_quoted(kept)}; the graph does not")
        if others:
            notes.append(f"the model's forward changes {_quoted(others)}; that is not part of the graph")
        return tuple(notes)

    def _forget_proxies(self) -> list[str]:
        """Put back attributes and buffers that hold traced values; their names."""
        found = []
        for path, module in self._model.named_modules():
            before = self._attributes.get(path, {})
            for table, old in ((vars(module), before), (module._buffers, self._buffers_of(path))):
                for name in [name for name, value in table.items() if name not in _TABLES and _holds_proxy(value)]:
                    found.append(f"{path}.{name}" if path else name)
                    if name in old and old[name] is not table[name]:
                        table[name] = old[name]
                    elif name in old:
                        _remove_proxies(table[name])
                    else:
                        del table[name]
        return found

    def others(self, changed: list[str]) -> list[str]:
        """Of attributes that have changed, those that neither held traced values nor are buffers."""
        return [path for path in changed if path not in self.kept and path not in self.written]

    def _put_numbers_back(self) -> None:
        for path, module in self._model.named_modules():
            for name, old in self._attributes.get(path, {}).items():
                new = vars(module).get(name, old)
                if type(old) in _NUMBERS and type(new) in _NUMBERS and new != old:
                    setattr(module, name, old)

    def _buffers_of(self, path: str) -> dict[str, torch.Tensor]:
        parts = ((name.rpartition("."), buffer) for name, (buffer, _) in self._buffers.items())
        return {name: buffer for (owner, _, name), buffer in parts if owner == path}

    def _undo_writes(self, original: nn.Module) -> list[str]:
        """Take back writes into buffers that were carried out during tracing; the names of the buffers."""
        written = self._written_buffers()
        for name in written:
            path, _, last = name.rpartition(".")
            self._model.get_submodule(path)._buffers[last] = self._buffers[name][0]
            with torch.no_grad():
                self._buffers[name][0].copy_(original.get_buffer(name))
        return written

    def _written_buffers(self) -> list[str]:
        now = dict(self._model.named_buffers())
        return [n for n, (old, version) in self._buffers.items() if now.get(n) is not old or old._version != version]


def depends_on_state(original: nn.Module, what: str, path: str) -> CaptureError:
    """The error for a graph that would be wrong from the second call on, where ``torch.export`` may do better.

    Args:
        original: The model.
        what: What forward does, as the rest of a sentence.
        path: What it does it to.
    """
    return CaptureError(
        f"{type(original).__name__} cannot be traced symbolically: its forward {what}, which a symbolic graph cannot "
        "do. Give example inputs, transform(model, args=(...)), so that torch.export can capture the model instead.",
        module_path=path.rpartition(".")[0],
    )


def _quoted(names: list[str]) -> str:
    return ", ".join(map(repr, names))


def _holds_proxy(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return any(map(_holds_proxy, value))
    if isinstance(value, dict):
        return any(map(_holds_proxy, value.values()))
    return isinstance(value, fx.Proxy)


def _remove_proxies(container: Any) -> None:
    """Take traced values out of a list or dictionary that was there before."""
    if isinstance(container, list):
        container[:] = [item for item in container if not _holds_proxy(item)]
    elif isinstance(container, dict):
        for key in [key for key, item in container.items() if _holds_proxy(item)]:
            del container[key]
