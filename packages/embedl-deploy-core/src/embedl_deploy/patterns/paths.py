"""Chooses the path of a replacement: that of the replaced module, if nothing else uses it."""

from collections import Counter
from collections.abc import Collection

import torch
from torch import fx, nn

from embedl_deploy.graph.arguments import constants_of, tensor_inputs
from embedl_deploy.graph.edit import add_module, put_module
from embedl_deploy.graph.forms.fixed_mode import class_name
from embedl_deploy.graph.lookup import get_module, owner, submodule
from embedl_deploy.graph.operators import operation
from embedl_deploy.graph.uses import target_uses


def home_path(node: fx.Node) -> str:
    """The module path that a node's computation comes from: of a function, its name in the module that calls it."""
    if node.op == "call_module":
        return str(node.target)
    if node.op == "get_attr":
        return str(node.target).rpartition(".")[0] or node.name
    for constant in constants_of(node):
        if "." in str(constant.target):
            return str(constant.target).rpartition(".")[0]
    stack = node.meta.get("nn_module_stack") or {}
    caller, kind = next(reversed(stack.values())) if stack else ("", "")
    name, module = operation(node), get_module(node)
    if not caller or not isinstance(name, str) or not _is_container(owner(node), caller):
        return node.name
    # torch.export opens modules of torch.nn, too: what equals such a module has its path.
    whole = module is not None and str(kind).rpartition(".")[2] == class_name(module)
    return str(caller) if whole else f"{caller}.{name}"


def _is_container(root: nn.Module, path: str) -> bool:
    """Whether a module can be placed below a path: nothing that computes lives there or on the way."""
    module: nn.Module | None = root
    for part in path.split("."):
        if not (part.isidentifier() or part.isdecimal()):
            return False
        module = module._modules.get(part) if module is not None else None
        if module is not None and type(module) is not nn.Module:
            return False
    return True


def claim_path(
    graph_module: fx.GraphModule,
    path: str,
    module: nn.Module,
    matched: list[fx.Node],
    owned: Collection[fx.Node] = (),
) -> str:
    """Place ``module`` at ``path`` if only the matched nodes use what lives there, else beside it."""
    graph, inside = graph_module.graph, set(matched)
    try:
        current = submodule(graph_module, path)
    except AttributeError:
        return add_module(graph_module, path, module)
    paths: list[str] = []  # of the module, what it holds, and their tensors
    for name, part in current.named_modules():
        here = f"{path}.{name}" if name else path
        computed = [key for key, value in vars(part).items() if isinstance(value, torch.Tensor)]  # by a hook
        paths += [here, *(f"{here}.{tensor}" for tensor in (*part._parameters, *part._buffers, *computed))]
    own = [node for node in matched if node.op == "call_module"]
    flowing = {value for node in matched for value in tensor_inputs(node)}
    constants = [n for node in matched for n in constants_of(node) if n not in flowing]
    own += [constant for constant in (*constants, *owned) if inside.issuperset(constant.users)]
    uses, ours = target_uses(graph), Counter(str(node.target) for node in dict.fromkeys(own))
    if any(uses.count(target) > ours[target] for target in paths):
        return add_module(graph_module, path, module)
    put_module(graph_module, path, module)
    return path
