"""Reading an ONNX file."""

import os
from typing import TYPE_CHECKING

from embedl_deploy.errors import InputError
from embedl_deploy.files import existing_file

if TYPE_CHECKING:
    import onnx_ir as ir


def read_onnx(path: str | os.PathLike[str]) -> "ir.Model":
    """Read an ONNX file; weights in a second file stay there until they are looked at.

    Raises:
        InputError: There is no such file, or it is no ONNX model.
    """
    import onnx_ir as ir
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    file = existing_file(path, "an ONNX file, such as export_onnx writes")
    try:
        model = ir.load(file)
    except (DecodeError, ValueError, TypeError) as error:
        raise InputError(f"{os.fspath(path)!r} cannot be read as ONNX: {error}") from error
    if not len(model.graph) and not model.graph.outputs:
        raise InputError(f"{os.fspath(path)!r} holds no graph; expected an ONNX file, such as export_onnx writes.")
    return model
