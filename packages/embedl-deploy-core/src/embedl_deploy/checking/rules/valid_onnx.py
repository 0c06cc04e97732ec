"""The rule that a file is valid ONNX, as the ``onnx`` package defines it."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from embedl_deploy.backend import Rule, Severity, Undecided, Violation
from embedl_deploy.errors import InputError

if TYPE_CHECKING:
    import onnx
    import onnx_ir as ir

#: Compilers take them with types and attributes of later operator sets than the file's; backends have rules about them.
_LEFT_TO_BACKENDS = frozenset({"QuantizeLinear", "DequantizeLinear"})
#: Bytes of a constant whose values shape inference may want, such as the target of a Reshape.
_SMALL = 1024


def check_operator_set(model: "ir.Model", what: str) -> None:
    """Look whether the installed ``onnx`` knows ONNX's own operators in the version that a file asks for.

    Args:
        model: The model.
        what: What it is called in messages.

    Raises:
        InputError: It does not.
    """
    import onnx

    version = _operator_sets(model).get("")
    newest = onnx.defs.onnx_opset_version()
    if version is not None and not 1 <= version <= newest:
        raise InputError(
            f"{what} requires operator set {version} of ONNX; the installed onnx {onnx.__version__} knows 1 to "
            f"{newest}. Export the model for one of those, or install a newer onnx."
        )


class ValidOnnx(Rule):
    """ONNX-1. What ``onnx.checker`` and strict shape inference of the ``onnx`` package refuse, node by node.

    Looked at are the operators of ONNX's own domains; those of others are for backends to know. QuantizeLinear and
    DequantizeLinear are left to the rules of backends. Of a node with graphs in it, such as If, the attributes are
    looked at, and the nodes in the graphs, not the types that it hands on.
    """

    id = "ONNX-1"
    severity = Severity.ERROR
    title = "Every operator is defined by ONNX, and has the inputs, attributes, types and shapes that ONNX requires."
    remedy = "Export the model again, or fix the node; put plugin operators in a domain of their own."

    def find(self, model: "ir.Model") -> Iterable[Violation | Undecided]:
        """Look at all nodes of ONNX's own domains."""
        import onnx

        domains = {schema.domain for schema in onnx.defs.get_all_schemas()}
        checker = _NodeChecker(model)
        doubtful: set[ir.Value | None] = set()  # after a quantizer that ONNX does not allow, which has no ONNX type
        for node in model.graph.all_nodes():
            after = not doubtful.isdisjoint(node.inputs)
            faults = []
            if _domain(node.domain) in domains:
                faults = list(checker.faults(node, with_types=not after))
            if node.op_type in _LEFT_TO_BACKENDS:
                after, faults = after or bool(faults), []
            if after:
                doubtful.update(node.outputs)
            for message in faults:
                yield Violation(node, message)


class _NodeChecker:
    """The schemas of the operator sets that a model asks for."""

    def __init__(self, model: "ir.Model") -> None:
        import onnx

        self.versions = _operator_sets(model)
        self.ir_version = model.ir_version
        self.context = type(onnx.checker.DEFAULT_CONTEXT)()
        self.context.ir_version = model.ir_version
        self.context.opset_imports = self.versions
        self.imports = [onnx.helper.make_opsetid(*each) for each in self.versions.items()]

    def faults(self, node: "ir.Node", *, with_types: bool) -> Iterator[str]:
        """What ONNX does not allow about a node, in words; of types and shapes if those of its inputs are known."""
        import onnx
        import onnx_ir as ir

        domain = _domain(node.domain)
        version = self.versions.get(domain)
        if version is None:
            yield f"the file asks for no operator set of {domain or 'ai.onnx'!r}, to which {node.op_type} belongs"
            return
        if not onnx.defs.has(node.op_type, version, domain):
            yield f"operator set {version} of {domain or 'ONNX'} has no operator {node.op_type}"
            return
        schema = onnx.defs.get_schema(node.op_type, version, domain)
        proto = ir.serde.serialize_node(node)
        proto.domain = domain
        has_graphs = _without_graphs(proto)
        try:
            onnx.checker.check_node(proto, self.context)
            types = None if has_graphs or not with_types or not _is_of_tensors(schema) else _types(node)
            inferred = {} if types is None else self._inferred(schema, node, proto, types)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            yield f"ONNX does not allow it: {_said(error)}"
            return
        for value in node.outputs:
            if value.name in inferred and value.type is not None:
                yield from _differences(value, inferred[value.name].tensor_type)

    def _inferred(
        self,
        schema: "onnx.defs.OpSchema",
        node: "ir.Node",
        proto: "onnx.NodeProto",
        types: "dict[str, onnx.TypeProto]",
    ) -> "dict[str, onnx.TypeProto]":
        import onnx

        inferred: dict[str, onnx.TypeProto] = onnx.shape_inference.infer_node_outputs(
            schema, proto, types, _constants(node), opset_imports=self.imports, ir_version=self.ir_version
        )
        return inferred


def _operator_sets(model: "ir.Model") -> dict[str, int]:
    return {_domain(name): version for name, version in model.graph.opset_imports.items()}


def _domain(name: str) -> str:
    """A domain by one name: ONNX's own has two."""
    return "" if name == "ai.onnx" else name


def _without_graphs(proto: "onnx.NodeProto") -> bool:
    """Empty the graphs in a node's attributes, which read values from outside; whether there are any."""
    import onnx

    empty = onnx.GraphProto(name="left_out")
    graphs = [attribute for attribute in proto.attribute if attribute.HasField("g") or attribute.graphs]
    for attribute in graphs:
        if attribute.HasField("g"):
            attribute.g.CopyFrom(empty)
        for graph in attribute.graphs:
            graph.CopyFrom(empty)
    return bool(graphs)


def _is_of_tensors(schema: "onnx.defs.OpSchema") -> bool:
    """Whether an operator neither takes nor gives sequences, of which onnx_ir may not know the types."""
    allowed = (kind for constraint in schema.type_constraints for kind in constraint.allowed_type_strs)
    return all(kind.startswith("tensor(") for kind in allowed)


def _types(node: "ir.Node") -> "dict[str, onnx.TypeProto] | None":
    """The types of what a node reads; ``None`` if one is not known, or no tensor."""
    import onnx
    import onnx_ir as ir

    types = {}
    for value in node.inputs:
        if value is None:
            continue
        if not isinstance(value.type, ir.TensorType) or value.name is None:
            return None
        shape = None if value.shape is None else [_size(size) for size in value.shape]
        types[value.name] = onnx.helper.make_tensor_type_proto(int(value.type.dtype), shape)
    return types


def _size(size: "int | ir.SymbolicDim") -> int | str | None:
    return size if isinstance(size, int) else size.value


def _constants(node: "ir.Node") -> "dict[str, onnx.TensorProto]":
    """The small constants that a node reads; weights in a second file stay there."""
    import onnx_ir as ir
    from onnx_ir.convenience import get_const_tensor

    found = {}
    for value in node.inputs:
        tensor = None if value is None else get_const_tensor(value)
        if value is None or not value.name or tensor is None or isinstance(tensor, ir.ExternalTensor):
            continue
        if tensor.nbytes <= _SMALL:
            found[value.name] = ir.serde.serialize_tensor(tensor)
    return found


def _differences(value: "ir.Value", computed: Any) -> Iterator[str]:
    """How an output as the file declares it differs from what its node gives."""
    import onnx_ir as ir

    if not computed.elem_type:
        return
    kind = ir.DataType(computed.elem_type)
    if value.dtype is not None and value.dtype != kind:
        yield f"the file declares its output {value.name!r} as {value.dtype.name}; it is {kind.name}"
    if value.shape is None or not computed.HasField("shape"):
        return
    declared = [_size(size) for size in value.shape]
    sizes = [size.dim_value if size.HasField("dim_value") else None for size in computed.shape.dim]
    fixed = zip(declared, sizes, strict=False)
    if len(declared) != len(sizes) or any(isinstance(a, int) and b is not None and a != b for a, b in fixed):
        yield f"the file declares its output {value.name!r} with the shape {_shape(declared)}; it is {_shape(sizes)}"


def _shape(sizes: Iterable[int | str | None]) -> str:
    return f"[{', '.join('?' if size is None else str(size) for size in sizes)}]"


def _said(error: Exception) -> str:
    """The words of the ``onnx`` package in a line."""
    words = " ".join(str(error).split())
    for kind in ("[ShapeInferenceError] ", "[TypeInferenceError] "):
        words = words.replace(kind, "")
    return words
