"""Models by name: ``package.module:factory`` with arguments and weights, or a program in a file."""

import ast
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from embedl_deploy.capture.user_code import user_line
from embedl_deploy.cli.model_files import load_program, load_state_dict
from embedl_deploy.errors import PLUGIN_FAILURES, CaptureError, InputError


@dataclass(frozen=True)
class ModelName:
    """What the command line says about a model.

    Attributes:
        name: ``"package.module:factory"``, or the path of a ``.pt2`` file.
        arguments: Keyword arguments of the factory.
        state_dict: File with weights for the model.
        allow_pickle: Whether files may hold pickled objects, which can run any code when they are loaded.
    """

    name: str
    arguments: Mapping[str, Any]
    state_dict: Path | None = None
    allow_pickle: bool = False

    def load(self) -> nn.Module | ExportedProgram:
        """The model, in evaluation mode.

        The random state is set to 0 before the factory is called: weights that it draws are the same each time.

        Raises:
            CaptureError: The user's code, or the file, does not give a model.
            InputError: There is no such module, factory or file, or the weights do not fit.
        """
        if self.name.endswith(".pt2"):
            if self.arguments or self.state_dict is not None:
                raise InputError(
                    f"{self.name!r} is a file with weights of its own; --model-arg and --state-dict are for factories."
                )
            return load_program(Path(self.name), allow_pickle=self.allow_pickle)
        model = self._made()
        if self.state_dict is not None:
            _give_weights(model, self.state_dict, allow_pickle=self.allow_pickle)
        return model.eval()

    def _made(self) -> nn.Module:
        module_name, colon, path = self.name.partition(":")
        if not (colon and path and all(part.isidentifier() for part in (module_name + "." + path).split("."))):
            raise InputError(
                f"The model {self.name!r} is neither 'package.module:factory' nor a .pt2 file. To load weights from a "
                "file, name the factory and pass --state-dict FILE."
            )
        value = _imported(module_name)
        for attribute in path.split("."):
            if not hasattr(value, attribute):
                raise InputError(f"{module_name!r} has no {path!r}; expected a function or class that makes the model.")
            value = getattr(value, attribute)
        if isinstance(value, nn.Module) and not self.arguments:
            return value
        if not callable(value):
            raise InputError(f"{self.name!r} is a {type(value).__name__}; expected a function or class.")
        torch.manual_seed(0)
        try:
            model = value(**self.arguments)
        except PLUGIN_FAILURES as error:  # the user's code may raise anything
            raise _failed(f"{self.name!r} cannot be called with {dict(self.arguments)!r}", error) from error
        if not isinstance(model, nn.Module):
            raise InputError(f"{self.name!r} gives a {type(model).__name__}; expected an nn.Module.")
        return model


def read_arguments(texts: Sequence[str]) -> dict[str, Any]:
    """Read ``name=value`` texts; values are Python literals, and anything else is a string.

    Raises:
        InputError: A text has another form.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise InputError(f"--model-arg {text!r}: expected name=value, for example num_classes=10.")
        try:
            found[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError, RecursionError, MemoryError):  # the last two for a thousand brackets
            found[name] = value
    return found


def _imported(name: str) -> Any:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            advice = "Install it, or change to the folder that contains it."
            if name.endswith(".py"):
                advice = f"A file is named as a module: {name.removesuffix('.py')}, without its ending."
            raise InputError(
                f"There is no module {error.name!r} in this environment nor in the current folder. {advice}"
            ) from error
        raise _failed(f"The module {name!r} cannot be imported", error) from error
    except PLUGIN_FAILURES as error:  # as above
        raise _failed(f"The module {name!r} cannot be imported", error) from error


def _failed(what: str, error: Exception | SystemExit) -> CaptureError:
    """An error of the user's code, with the line that it comes from."""
    source, _ = user_line(error)
    where = f", at {source}" if source else ""
    return CaptureError(f"{what}{where}: {type(error).__name__}: {error}", source=source)


def _give_weights(model: nn.Module, path: Path, *, allow_pickle: bool) -> None:
    weights = load_state_dict(path, allow_pickle=allow_pickle)
    try:
        model.load_state_dict(weights)
    except Exception as error:  # modules may load their weights by code of their own
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        told = lines[1:] if isinstance(error, RuntimeError) and len(lines) > 1 else [type(error).__name__, *lines]
        raise InputError(
            f"The weights in {os.fspath(path)!r} do not fit {type(model).__name__}: {' '.join(told)}"
        ) from error
