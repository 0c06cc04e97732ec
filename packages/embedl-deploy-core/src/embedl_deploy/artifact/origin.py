"""Which PyTorch module an ONNX node was exported from."""

import ast
from typing import TYPE_CHECKING

from embedl_deploy.validation.checked import checked

if TYPE_CHECKING:
    import onnx_ir as ir

#: Where torch's exporter keeps the modules that a node was in, outermost first, and the node's own name at the end.
_SCOPES = "pkg.torch.onnx.name_scopes"
#: Parts of a quantized module that hold its quantizers. The module is what the user knows.
_SLOTS = frozenset({"quantizer", "weight_fake_quant", "input_quant_stubs"})
_QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")


@checked
def module_of(node: "ir.Node") -> str | None:
    """The dotted path of the innermost module that a node computes a part of.

    torch's exporter notes it in the node's metadata. Exporters before it write it into the node's name, as in
    ``/layer1/layer1.0/conv1/Conv``.

    Returns:
        The path, or ``None`` where the file says nothing. Quantizers count as the module that they stand in.
    """
    noted = node.metadata_props.get(_SCOPES)
    if noted is None:
        return _from_name(node.name or "")
    scopes = ast.literal_eval(noted)
    path = next((scope for scope in reversed(scopes[:-1]) if scope), "")
    parts: list[str] = []
    for part in path.split("."):
        if part in _SLOTS or part.endswith("_weight_fake_quant"):
            break
        parts.append(part)
    return ".".join(parts) or None


def _from_name(name: str) -> str | None:
    """``/layer1/layer1.0/conv1/Conv`` as ``layer1.0.conv1``: a scope that repeats the one before extends it."""
    if not name.startswith("/"):
        return None
    parts: list[str] = []
    for scope in name.split("/")[1:-1]:
        if parts and scope.startswith(f"{parts[-1]}."):
            parts.pop()
        parts.append(scope)
    return ".".join(parts) or None


@checked
def users_module_of(node: "ir.Node") -> str | None:
    """The module to name to the user: for QuantizeLinear and DequantizeLinear that of the first node that computes.

    The quantizers of activations are modules of their own, which the user's model does not have.
    """
    reader = node
    while reader.op_type in _QUANTIZERS and (uses := reader.outputs[0].uses()):
        reader = next(iter(uses)).node
    return module_of(reader) or module_of(node)


@checked
def modules_by_node(model: "ir.Model") -> dict[str, str]:
    """The modules of all nodes of a model that have a name and a module, subgraphs included."""
    found = {node.name: module_of(node) for node in model.graph.all_nodes() if node.name}
    return {name: module for name, module in found.items() if module}
