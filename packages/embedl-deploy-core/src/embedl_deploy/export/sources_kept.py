"""Has the exporter read the source of its translations once in a process, not once for each file.

``torch.onnx.export`` asks each of the five hundred functions that translate ATen's operators for its name. onnxscript
parses the function's source for it every time: half a second for each file, however small the model.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

from embedl_deploy.exclusive import global_state

_read: "WeakKeyDictionary[Any, Any]" = WeakKeyDictionary()


@contextmanager
def sources_kept() -> Iterator[None]:
    """Around a call of the exporter. One thread at a time."""
    from onnxscript import TracedOnnxFunction

    asked = vars(TracedOnnxFunction).get("function_ir")
    if not isinstance(asked, property) or asked.fget is None:  # another release, which may keep it itself
        yield
        return
    read = asked.fget

    def kept(function: Any) -> Any:
        if function not in _read:
            _read[function] = read(function)
        return _read[function]

    with global_state:
        TracedOnnxFunction.function_ir = property(kept)  # type: ignore[method-assign, assignment]  # for a while
        try:
            yield
        finally:
            TracedOnnxFunction.function_ir = asked  # type: ignore[method-assign, assignment]  # back again
