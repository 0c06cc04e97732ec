"""Functional calls as the ``torch.nn`` modules that they equal.

A form (``forms/``) names the module class and how its constructor's arguments are read from a call. A call is
only given a module form when the module computes the same thing for every input: a slope that is itself a
tensor, or a weight that is computed on the way, has none.

Which arguments flow in is a matter of their roles: the form names them, whatever kind of node they come from. A
parameter of the model in place of the input is an input; the rest are shared, never copied: the module built for
``F.linear(x, self.w)`` holds ``self.w`` itself.
"""

from collections.abc import Callable, Iterator
from typing import Any

from torch import fx, nn

from embedl_deploy.errors import PatternError
from embedl_deploy.graph.forms import activations, norms, pooling, products, shaping
from embedl_deploy.graph.forms.fixed_mode import FrozenBatchNorm2d
from embedl_deploy.graph.forms.form import Call, Form, NoModuleFormError
from embedl_deploy.graph.forms.products import conv2d_with, linear_with
from embedl_deploy.graph.metadata import dtype_of, shape_of
from embedl_deploy.graph.operators import is_in_place, operation, operation_of_target
from embedl_deploy.graph.rank import rank_of
from embedl_deploy.graph.signatures import bind_call
from embedl_deploy.validation.checked import checked

#: The families, in the order in which they are listed.
FAMILIES: dict[str, tuple[Form, ...]] = {
    "activations": activations.FORMS,
    "products": products.FORMS,
    "norms": norms.FORMS,
    "pooling": pooling.FORMS,
    "shapes, dropout and distances": shaping.FORMS,
}

_forms: dict[Any, Form] = {name: form for forms in FAMILIES.values() for form in forms for name in form.operations}
_builtin = frozenset(_forms)


@checked
def register_form(
    operation: Any,
    module_class: type[nn.Module],
    build: Callable[[Call], nn.Module],
    *,
    inputs: tuple[str, ...] = ("input",),
) -> None:
    """Register the module that a call of a function equals, so that patterns for the module match the call.

    For functions that ``torch.nn`` has no module for, above all a custom operator of one's own. It holds for the
    whole process, for every backend: that a call and a module compute the same does not depend on hardware. Registering
    a function again takes the place of the earlier form.

    Args:
        operation: The function, or the name of a tensor method or operator of torch.
        module_class: The class of the module.
        build: Makes the module from the arguments of a call; ``call.setting("beta")`` gives a number,
            ``call.tensor("weight")`` a parameter of the model. Where no module computes the same it raises
            :class:`NoModuleFormError`, as these two do for a value that is computed on the way.
        inputs: Names of the arguments that flow in, in the order in which the module takes them; the first of an
            operator of torch is ``"input"``.

    Raises:
        PatternError: Core has a form for the operation, or an argument does not fit.
    """
    name = operation_of_target(operation)
    if isinstance(name, str) and name in _builtin:
        raise PatternError(
            f"register_form: {operation!r} is read as {_forms[name].module_class.__name__} by core. Match that class."
        )
    if not (isinstance(module_class, type) and issubclass(module_class, nn.Module)):
        raise PatternError(f"register_form: module_class is {module_class!r}; expected a class of modules.")
    names: object = inputs
    if not callable(build) or not isinstance(names, tuple) or not names:
        raise PatternError(
            f"register_form: build is {build!r} and inputs is {names!r}; expected a function of a Call, and names "
            'of arguments, such as ("input",).'
        )
    _forms[name] = Form((name,), module_class, build, inputs)


def _form(node: fx.Node) -> Form | None:
    name = operation(node)
    return None if name is None else _forms.get(name)


def _role(values: dict[str, Any], role: str) -> Any:
    return next((values[name] for name in role.split("|") if name in values), None)


def module_class_of_call(node: fx.Node) -> type[nn.Module] | None:
    """The module class, or a base of it, that a functional call would be, judged by its operation alone."""
    form = _form(node)
    return None if form is None else form.module_class


def state_of_call(node: fx.Node) -> dict[str, fx.Node]:
    """What belongs to a functional call that equals a module and does not flow in, by the name of the argument."""
    form, bound = _form(node), bind_call(node)
    if form is None or bound is None:
        return {}
    own = {name for role in form.inputs for name in role.split("|")}
    return {name: value for name, value in bound.values.items() if isinstance(value, fx.Node) and name not in own}


def inputs_of_call(node: fx.Node) -> Iterator[fx.Node]:
    """What flows into a functional call that equals a module, in the order in which the module takes it."""
    form, bound = _form(node), bind_call(node)
    if form is not None and bound is not None:
        yield from (value for role in form.inputs if isinstance(value := _role(bound.values, role), fx.Node))


def module_of_call(node: fx.Node, constant: Callable[[fx.Node], Any]) -> nn.Module | None:
    """Build the module that a functional call equals.

    Args:
        node: A ``call_function`` or ``call_method`` node.
        constant: Gives what a node that does not flow in stands for, a tensor of the model; or the node, where that is
            computed on the way.

    Returns:
        A module for the call's inputs, sharing the call's parameters; ``None`` when no module computes the same thing.
    """
    form = _form(node)
    bound = None if form is None else bind_call(node)
    if form is None or bound is None:
        return None
    inputs = [_role(bound.values, role) for role in form.inputs]
    if not all(isinstance(value, fx.Node) for value in inputs):
        return None
    own = {name for role in form.inputs for name in role.split("|")}
    values = {
        name: constant(value) if isinstance(value, fx.Node) and name not in own else value
        for name, value in bound.values.items()
    }
    name = operation(node)
    first = inputs[0]
    known = shape_of(first), rank_of(first), is_in_place(node), dtype_of(first)
    call = Call(str(name), values, bound.defaults, *known)
    try:
        return form.build(call)
    except NoModuleFormError:
        return None


__all__ = [
    "FAMILIES",
    "Call",
    "Form",
    "FrozenBatchNorm2d",
    "NoModuleFormError",
    "conv2d_with",
    "inputs_of_call",
    "linear_with",
    "module_class_of_call",
    "module_of_call",
    "register_form",
]
