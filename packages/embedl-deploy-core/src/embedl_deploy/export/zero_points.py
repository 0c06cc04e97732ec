"""Makes zero points of centered tensors zero, by shifting the tensors.

:mod:`embedl_deploy.quantize.accuracy.centering` has the formulas. Done on the frozen model, whose biases and
rounded weights are final.
"""

from collections.abc import Iterator
from dataclasses import replace

from torch import fx

from embedl_deploy.errors import ExportError
from embedl_deploy.graph.arguments import argument_at
from embedl_deploy.graph.edit import add_call
from embedl_deploy.graph.lookup import get_module, has_hooks
from embedl_deploy.graph.uses import TargetUses, times_read
from embedl_deploy.modules import FusedModule, QuantStub
from embedl_deploy.modules.centering import CenterInput
from embedl_deploy.modules.float32 import ToFloat32, ToModelType
from embedl_deploy.quantize.accuracy.centering import center_of
from embedl_deploy.quantize.grid.scales import Grid
from embedl_deploy.quantize.placing.quantizer import Quantizer


def has_centered(model: object) -> bool:
    """Whether a model has centered quantizers."""
    parts = model.modules() if isinstance(model, fx.GraphModule) else ()
    return any(isinstance(part, Quantizer) and part.config.centered for part in parts)


def fold_zero_points(model: fx.GraphModule) -> None:
    """Shift centered tensors, so that their quantizers are symmetric, with what is before and after them changed.

    Args:
        model: A frozen model; changed in place, in parameters of its own.

    Raises:
        ExportError: A centered tensor is read by something that cannot make up for a shift.
    """
    uses = TargetUses(model.graph)
    for node in list(model.graph.nodes):
        stub = get_module(node) if node.op == "call_module" else None
        if isinstance(stub, QuantStub) and isinstance(stub.quantizer, Quantizer) and stub.quantizer.config.centered:
            center = center_of(stub.quantizer)
            if center:
                _shift(model, node, center, stub.quantizer.name, uses)
            stub.quantizer = _symmetric(stub.quantizer)
    left = [part for part in model.modules() if isinstance(part, Quantizer) and part.config.centered]
    if left:
        raise _refused(left[0].name, "its quantizer is inside a module")
    model.recompile()


def _shift(model: fx.GraphModule, stub: fx.Node, center: float, name: str, uses: TargetUses) -> None:
    modules = []
    paddings = set()
    for reader, given in _readers(stub):
        module = get_module(reader) if reader.op == "call_module" else None
        if not isinstance(module, FusedModule) or argument_at(reader, 0) is not given:
            raise _refused(name, f"{reader.name} reads it")
        padding = module.input_padding()
        if isinstance(padding, str):
            raise _refused(name, f"{reader.target} reads it: {padding}")
        if uses.count(str(reader.target)) > 1 or times_read(given) > len(given.users):
            raise _refused(name, f"{reader.target} is called, or reads it, more than once")
        modules.append(module)
        paddings.add(padding)
    if len(paddings) > 1:
        raise _refused(name, "its readers pad it differently")
    source = stub.args[0]
    assert isinstance(source, fx.Node)  # a stub is called with a tensor
    shift = 0.0 if _shifted_by_source(source, stub, center, uses) else center
    padding = next(iter(paddings), ())
    if shift or padding:
        with model.graph.inserting_before(stub):
            shifted = add_call(model, f"{stub.name}_center", CenterInput(shift, padding, -center), source)
        stub.args = (shifted,)
        shifted.meta.pop("tensor_meta", None)  # padding changes the shape
        stub.meta.pop("tensor_meta", None)
    for module in modules:
        module.center_input(center)


def _readers(stub: fx.Node) -> Iterator[tuple[fx.Node, fx.Node]]:
    """What reads a quantized tensor, and as which node: some of it is cast to another type first."""
    for user in stub.users:
        module = get_module(user) if user.op == "call_module" else None
        if isinstance(module, (ToFloat32, ToModelType)):
            yield from _readers(user)
        else:
            yield user, stub


def _shifted_by_source(source: fx.Node, stub: fx.Node, center: float, uses: TargetUses) -> bool:
    """Whether the module that gives a tensor gives it shifted from now on."""
    module = get_module(source) if source.op == "call_module" else None
    alone = set(source.users) == {stub} and times_read(source) == 1 and uses.count(str(source.target)) == 1
    if not isinstance(module, FusedModule) or not alone or any(has_hooks(part) for part in module.modules()):
        return False  # hooks see, and may change, what comes before the shift
    return module.shift_outputs(center) is None


def _symmetric(quantizer: Quantizer) -> Quantizer:
    """A quantizer with the same steps around zero."""
    config = replace(quantizer.config, symmetric=True, centered=False)
    symmetric = Quantizer(config, quantizer.name).to(quantizer.scale.device)
    symmetric.set_grid(Grid(quantizer.scale.detach()))
    symmetric.readers = quantizer.readers
    return symmetric.eval()


def _refused(name: str, why: str) -> ExportError:
    return ExportError(
        f"{name} is centered, and cannot be shifted: {why}. Quantize by quantize(..., centering=True), which centers "
        "only what can be shifted, or give it a symmetric format."
    )
