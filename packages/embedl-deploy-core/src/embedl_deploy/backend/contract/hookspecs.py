"""Every hook that a plugin can implement, and when it is called.

A plugin is a module (or any object) with functions of these names, each marked with :data:`hookimpl`. An
implementation may leave out parameters that it does not need. A function whose name starts with ``embedl_deploy_``
but is not a hook, or takes a parameter that the hook does not have, is an error that names the distribution.

A *backend* is registered under its own name in the entry-point group ``embedl_deploy.backends``. An *extension* of a
backend is registered in the same group under ``<backend>.<extension>``: it adds patterns to a backend that exists.

Several plugins of one backend have one order: those whose implementation of the hook is marked ``tryfirst``, then
extensions by name, then the backend, then those marked ``trylast``. A hook that only some versions of the core have is
marked ``optionalhook``: versions without it leave it out.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pluggy
from torch import fx, nn

from embedl_deploy.backend.contract.compilers import Compiler
from embedl_deploy.backend.contract.rules import Rule
from embedl_deploy.engine import Device
from embedl_deploy.numerics import QuantConfig, QuantPolicy
from embedl_deploy.patterns import Pattern
from embedl_deploy.validation.checked import checked

if TYPE_CHECKING:
    import onnx_ir as ir
    from torch._ops import OpOverload

PROJECT = "embedl_deploy"

hookspec = pluggy.HookspecMarker(PROJECT)
#: Marks a function of a plugin as the implementation of the hook of the same name.
hookimpl = pluggy.HookimplMarker(PROJECT)


@checked
@dataclass(frozen=True)
class BackendInfo:
    """A backend's title and description.

    Attributes:
        title: Name for people, for example ``"Acme Edge NPU"``.
        description: One sentence on what the hardware or compiler is.
        domains: Domains of ONNX operators that the compiler has itself, ``("acme",)``. A file may define such operators
            as functions, by which others can run it; :func:`embedl_deploy.check` leaves their calls as they are.
    """

    title: str
    description: str = ""
    domains: tuple[str, ...] = ()


@hookspec(firstresult=True)
def embedl_deploy_describe() -> BackendInfo:  # type: ignore[empty-body]  # a specification has no body
    """Describe the backend.

    Called once, when the backend is loaded. Every backend implements it; an extension does not.
    """


@hookspec
def embedl_deploy_conversions(backend: str) -> Sequence[Pattern] | None:
    """Give the structural rewrites, in the order in which they are tried.

    Called once, when the plugin is loaded.

    Args:
        backend: Name of the backend.

    Returns:
        Patterns with ``is_conversion = True``; ``None`` for none.
    """


@hookspec
def embedl_deploy_fusions(backend: str) -> Sequence[Pattern] | None:
    """Give the fusions, longest and most specific first: the first that takes a node has it.

    Called once, when the plugin is loaded.

    Args:
        backend: Name of the backend.

    Returns:
        Patterns with ``is_conversion = False``; ``None`` for none.
    """


@hookspec
def embedl_deploy_leaf_modules(backend: str) -> Sequence[type[nn.Module]] | None:
    """Name further module classes that capture keeps whole, so that patterns can match them.

    Fused and converted modules are kept whole without being named.

    Called once, when the plugin is loaded.

    Args:
        backend: Name of the backend.

    Returns:
        Module classes; ``None`` for none.
    """


@hookspec
def embedl_deploy_quantization_policies(backend: str) -> Mapping[str, QuantPolicy] | None:
    """Name policies that say where quantizers do not pay on the hardware.

    Called once, when the plugin is loaded.

    Args:
        backend: Name of the backend.

    Returns:
        Policies by name, the default first; ``None`` for none. A policy is called with a :class:`QuantPoint` and
        returns why no quantizer should stand there, or ``None``. Policies of several plugins under one name are all
        asked: each may object, and the report names the distribution of the one that did.
    """


@hookspec(firstresult=True)
def embedl_deploy_quantization_config(backend: str) -> QuantConfig | None:
    """Give the number formats of the hardware, with which models are quantized where the user names none.

    Called each time that ``quantize`` or ``insert_qdq`` is not given a configuration, not when the backend is loaded.

    Args:
        backend: Name of the backend.

    Returns:
        A :class:`embedl_deploy.numerics.QuantConfig`; ``None`` for INT8 with a scale for each channel of a weight.
    """


@hookspec
def embedl_deploy_onnx_translations(backend: str, opset: int) -> "Mapping[OpOverload, Callable[..., Any]] | None":
    """Say what operators of your own are in ONNX, for :func:`embedl_deploy.export_onnx`.

    Called each time that a model is exported that was transformed for the backend, not when the backend is loaded:
    import ``onnxscript`` inside.

    Args:
        backend: Name of the backend.
        opset: Version of the ONNX operator set that the file is written for.

    Returns:
        For each overload of an operator, such as ``torch.ops.acme.clip.default``, a function that is called with its
        arguments and calls operators of ``onnxscript.opset<version>``; ``None`` for none. Of two for one operator the
        first is used.
    """


@hookspec
def embedl_deploy_finish_onnx(backend: str, model: "ir.Model") -> None:
    """Change a file that was exported, in what only the target's compiler asks for.

    Called each time that a model is exported that was transformed for the backend, and for each candidate of a search
    (:func:`embedl_deploy.tuning.tune`); the file is checked, and run against PyTorch, afterwards. The backend is called
    before its extensions. What nothing reads afterwards need not be removed.

    Args:
        backend: Name of the backend.
        model: The file, to be changed in place. It must compute the same, up to rounding, and keep the names of its
            inputs and outputs.
    """


@hookspec
def embedl_deploy_check_rules(backend: str) -> Sequence[Rule] | None:
    """Give the rules that the compiler's ONNX files have to keep, for :func:`embedl_deploy.check`.

    Called once, when the plugin is loaded: import ``onnx`` and ``onnx_ir`` only inside a rule's ``find``.

    Args:
        backend: Name of the backend.

    Returns:
        Rules, no two with the same id; ``None`` for none. Of rules of several plugins with one id the first is used:
        the extension's, unless it is marked ``trylast``.
    """


@hookspec
def embedl_deploy_compilers(backend: str) -> Sequence[Compiler] | None:
    """Give the compilers that can be called from Python, for :func:`embedl_deploy.compile`, the preferred first.

    Called once, when the plugin is loaded: import the compiler's own packages only inside its methods.

    Args:
        backend: Name of the backend.

    Returns:
        Compilers, installed or not; ``None`` for none.
    """


@hookspec
def embedl_deploy_devices(backend: str) -> Sequence[Device] | None:
    """Give peak rates of devices, for :func:`embedl_deploy.engine.estimate`.

    Called once, when the plugin is loaded.

    Args:
        backend: Name of the backend.

    Returns:
        Devices; ``None`` for none.
    """


@hookspec(firstresult=True)
def embedl_deploy_explain_unfused(backend: str, node: fx.Node) -> str | None:
    """Say why the hardware cannot run an operator that no fusion took.

    Called after the fusions, once for every operator outside a fused module. Must not change the graph.

    Args:
        backend: Name of the backend.
        node: A ``call_module``, ``call_function`` or ``call_method`` node of the transformed graph.

    Returns:
        The constraint that is broken, for example ``"GELU: the engine has only ReLU"``; ``None`` if the hardware
        runs it as it is, or nothing is known.
    """
