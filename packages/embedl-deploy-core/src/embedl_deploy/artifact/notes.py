"""Metadata of an exported file that says which modules are in float, and which rule decided it."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from embedl_deploy.json_text import NotJsonError, parse_json
from embedl_deploy.validation.checked import checked

if TYPE_CHECKING:
    import onnx_ir as ir

_IN_FLOAT = "embedl_deploy.in_float"


@checked
def note_in_float(model: "ir.Model", reasons: Mapping[str, str]) -> None:
    """Write down why modules are not quantized: by path."""
    if reasons:
        model.metadata_props[_IN_FLOAT] = json.dumps(dict(reasons), sort_keys=True)


@checked
def why_in_float(model: "ir.Model", module: str) -> str | None:
    """Why a module, or the one that it is part of, is not quantized; ``None`` if the file does not say."""
    try:
        reasons = parse_json(model.metadata_props.get(_IN_FLOAT, "{}"))
    except NotJsonError:  # written by something else
        return None
    if not isinstance(reasons, dict):
        return None
    path = module
    while path:
        if path in reasons:
            return str(reasons[path])
        path = path.rpartition(".")[0]
    return None
