"""Reading an ONNX file."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from embedl_deploy.artifact.order import check_order
from embedl_deploy.artifact.weights import check_weights
from embedl_deploy.errors import InputError
from embedl_deploy.files import existing_file
from embedl_deploy.validation.checked import checked

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir


@checked
def read_onnx(path: str | os.PathLike[str]) -> "ir.Model":
    """Read an ONNX file; weights in a second file stay there until they are looked at.

    Raises:
        InputError: The file does not exist, is not an ONNX model, or has a tensor without the declared data; see
            ``check_weights``.
    """
    import onnx
    import onnx_ir as ir
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    file = existing_file(path, "an ONNX file, such as export_onnx writes")
    try:
        proto = onnx.load(file, format="protobuf", load_external_data=False)
    except (DecodeError, ValueError, TypeError) as error:
        raise InputError(
            f"{os.fspath(path)!r} cannot be read as ONNX: {error}. Pass a file that export_onnx has written."
        ) from error
    model = model_of(proto, file)
    if not len(model.graph) and not model.graph.outputs:
        raise InputError(f"{os.fspath(path)!r} contains no graph; expected an ONNX file, such as export_onnx writes.")
    ir.external_data.set_base_dir(model.graph, file.parent)
    return model


@checked
def model_of(proto: "onnx.ModelProto", path: Path | None) -> "ir.Model":
    """A model as onnx_ir's, after a look at its weights and its order.

    Args:
        proto: The model.
        path: Where it was read from; ``None`` for one in memory.

    Raises:
        InputError: A tensor has not the numbers that it declares, or the graph is none.
    """
    import onnx_ir as ir

    check_weights(proto, path)
    what = "The model in memory" if path is None else repr(os.fspath(path))
    try:
        model = ir.from_proto(proto)
    except Exception as error:  # a file may hold anything, for which onnx_ir has no error of its own
        raise InputError(f"{what} cannot be read as ONNX: {type(error).__name__}: {error}") from error
    check_order(model, what)
    return model
