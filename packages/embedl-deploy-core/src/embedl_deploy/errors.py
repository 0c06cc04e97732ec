"""Every error that embedl-deploy raises, under one root.

Each message says what failed, on what (quoted), what was expected and found, and what to do. Errors that
concern an argument also derive from the built-in type that Python programmers would catch for it.
"""

from typing import Any


class EmbedlDeployError(Exception):
    """The base class of all errors of embedl-deploy and of backends. All of them can be pickled.

    Attributes:
        fault: What failed, in one line without advice, if a note quotes it; otherwise empty.
    """

    fault: str = ""

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions are otherwise made again from their message alone, and those of ours take more than it.
        return _made_again, (type(self), self.args, vars(self))


def _made_again(kind: type[EmbedlDeployError], args: tuple[Any, ...], attributes: dict[str, Any]) -> EmbedlDeployError:
    error = kind.__new__(kind, *args)
    error.args = args
    vars(error).update(attributes)
    return error


def in_a_line(error: EmbedlDeployError) -> str:
    """What failed, for a note that says itself what was done about it."""
    return (error.fault or str(error) or "no message").splitlines()[0]


#: What code of a plugin may raise that is told as its failure: ``sys.exit()`` in it must not end the user's process.
#: What the user raises, with Ctrl-C, passes.
PLUGIN_FAILURES = (Exception, SystemExit)


class InputError(EmbedlDeployError, ValueError):
    """An argument does not fit: example inputs of the wrong number or shape, not a model, an unknown option."""

    def __init__(self, *message: str, fault: str = "") -> None:
        super().__init__(*message)
        self.fault = fault


class FileWriteError(EmbedlDeployError, OSError):
    """A file cannot be written where it should be: there is no such place, or no permission to write there."""


class ArgumentError(InputError):
    """An argument is not of the kind that the function's annotation says."""


class CaptureError(EmbedlDeployError):
    """A model could not be turned into a graph.

    Attributes:
        module_path: Dotted path of the module whose ``forward`` failed; ``""`` is the model itself.
        source: ``"file:line"`` of the user's own code that failed, or ``None`` if no frame of it was found.
        reason: What was raised there, in a line; empty if that is not all there is to say.
    """

    def __init__(
        self, message: str, *, module_path: str = "", source: str | None = None, reason: str = "", fault: str = ""
    ) -> None:
        super().__init__(message)
        self.fault = fault
        self.module_path = module_path
        self.source = source
        self.reason = reason


class PatternError(EmbedlDeployError):
    """A pattern is declared wrongly, or its replacement cannot be built or broke the graph."""


class FusedModuleError(PatternError):
    """A module that a pattern put into the model raised while it computed.

    Attributes:
        module_path: Where the module is.
        pattern: Name of the pattern.
        distribution: Name and version of the distribution that ships the pattern, for example ``"acme 1.2"``; empty if
            it came in a list of patterns.
    """

    def __init__(self, message: str, *, module_path: str, pattern: str, distribution: str) -> None:
        super().__init__(message)
        self.module_path = module_path
        self.pattern = pattern
        self.distribution = distribution


class ConversionLoopError(PatternError):
    """Conversions kept matching and never reached a fixed point."""


class PlanError(EmbedlDeployError):
    """A plan cannot be used: applied twice, made from another model or other patterns, or unreadable."""


class BackendError(EmbedlDeployError):
    """A backend cannot be used."""


class BackendNotFoundError(BackendError, LookupError):
    """No backend of that name is installed, or none was chosen and the choice is not obvious."""


class PluginError(BackendError):
    """A plugin is broken: it raises on import, its hooks are wrong, or its name is taken.

    Attributes:
        plugin: Name of the entry point.
        distribution: Name and version of the distribution that ships it, for example ``"acme 1.2"``.
    """

    def __init__(self, message: str, *, plugin: str, distribution: str) -> None:
        super().__init__(message)
        self.plugin = plugin
        self.distribution = distribution


class ExportError(EmbedlDeployError):
    """A model could not be exported, or the exported file does not compute what the model computes."""


class CompileError(EmbedlDeployError):
    """A file could not be compiled: no compiler is installed, it refuses the file, or it took too long.

    Attributes:
        node: Name of the ONNX node that the compiler refuses, or ``None`` if it names none.
        module: Path of the PyTorch module that the node came from.
        rules: Ids of the checker's rules that explain it.
        messages: The compiler's own words.
    """

    def __init__(
        self,
        message: str,
        *,
        node: str | None = None,
        module: str | None = None,
        rules: tuple[str, ...] = (),
        messages: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.node = node
        self.module = module
        self.rules = rules
        self.messages = messages


class CompilerNotFoundError(CompileError, LookupError):
    """The backend has no compiler, or none of its compilers is installed."""


class QuantizationError(EmbedlDeployError):
    """A model cannot be quantized or calibrated as asked.

    Attributes:
        tensor: The tensor that it failed on, or ``None`` if it is not about one.
    """

    def __init__(self, message: str, *, tensor: str | None = None) -> None:
        super().__init__(message)
        self.tensor = tensor


class NotFiniteError(QuantizationError):
    """A tensor that is calibrated holds NaN or infinity."""


class QuantizationConfigError(QuantizationError, ValueError):
    """A combination of settings that no quantizer supports."""


class DistributedError(EmbedlDeployError):
    """What several ranks do together has failed; every rank of the group raises this.

    Attributes:
        ranks: By rank, what it has raised, that it is silent, or what it has that others do not.
    """

    def __init__(self, message: str, *, ranks: dict[int, str]) -> None:
        super().__init__(message)
        self.ranks = ranks
