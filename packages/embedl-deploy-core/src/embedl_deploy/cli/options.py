"""Options that several commands share: the model and its inputs, the backend, the rewrites, the file to write."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click
import torch
from torch import nn
from torch.export import ExportedProgram

from embedl_deploy import (
    Trace,
    TransformationPlan,
    TransformationResult,
    apply_transformation_plan,
    get_transformation_plan,
    load_transformation_plan,
)
from embedl_deploy.backend import discover_backends
from embedl_deploy.cli.inputs import inputs_from_file, inputs_from_shapes
from embedl_deploy.cli.models import ModelName, read_arguments
from embedl_deploy.cli.parameters import OpenDimension, complete_backend, open_dimensions
from embedl_deploy.cli.paths import InputFile, ModelSource, OutputFile
from embedl_deploy.errors import InputError, PlanError
from embedl_deploy.files import read_text
from embedl_deploy.graph.open_dimensions import named_inputs

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class Subject:
    """What a command works on.

    Attributes:
        model: The model, in evaluation mode.
        args: Example inputs; ``None`` if none were given.
        kwargs: Example keyword inputs.
    """

    model: nn.Module | ExportedProgram
    args: tuple[torch.Tensor, ...] | None
    kwargs: dict[str, torch.Tensor]

    def needed_inputs(self, why: str) -> tuple[torch.Tensor, ...]:
        """The positional example inputs.

        Raises:
            InputError: No inputs were given.
        """
        if self.args is None:
            raise InputError(f"{why} needs example inputs: pass --input 1,3,224,224, or --inputs FILE.npz.")
        return self.args


@dataclass(frozen=True)
class Rewrites:
    """How a model is rewritten.

    Attributes:
        backend: Name of the backend.
        plan: File with the decisions of an earlier ``plan`` command.
        trace: How to capture the model.
        strict: Whether a pattern that fails is an error.
        verify_capture: Whether model and graph are compared on the example inputs.
        dynamic: The dimensions of inputs that are left open.
    """

    backend: str | None
    plan: Path | None
    trace: Trace
    strict: bool
    verify_capture: bool
    dynamic: tuple[OpenDimension, ...] = ()

    def make_plan(self, subject: Subject) -> TransformationPlan:
        """Make the plan for a model, or load it from ``--plan``."""
        choices: dict[str, Any] = {
            "kwargs": subject.kwargs or None,
            "trace": self.trace,
            "verify_capture": self.verify_capture,
            "dynamic_shapes": self._dynamic_shapes(subject),
        }
        if self.plan is None:
            backend = resolve_backend(self.backend)
            return get_transformation_plan(subject.model, subject.args, backend=backend, strict=self.strict, **choices)
        text = read_text(self.plan, "a plan")
        try:
            return load_transformation_plan(text, subject.model, subject.args, backend=self.backend, **choices)
        except PlanError as error:
            raise PlanError(f"--plan {str(self.plan)!r}: {error}") from error

    def _dynamic_shapes(self, subject: Subject) -> dict[str, dict[int, Any]] | None:
        if not self.dynamic:
            return None
        if isinstance(subject.model, ExportedProgram):
            raise InputError("--dynamic is for models that are captured; an exported program has its open dimensions.")
        names = list(named_inputs(subject.model, subject.needed_inputs("--dynamic"), subject.kwargs))
        shapes: dict[str, dict[int, Any]] = {}
        for one in self.dynamic:
            shapes.setdefault(one.name or names[0], {})[one.dimension] = one.dim
        return shapes

    def transform(self, subject: Subject) -> TransformationResult:
        """Apply the plan for a model."""
        return apply_transformation_plan(self.make_plan(subject), strict=self.strict)


def resolve_backend(backend: str | None) -> str | None:
    """The given name of a backend, or ``None`` for the only one that is installed.

    Raises:
        InputError: No name was given, and several backends are installed.
    """
    names = list(discover_backends())
    if backend is None and len(names) > 1:
        raise InputError(
            f"Several backends are installed ({', '.join(names)}); pass --backend {names[0]}, for example."
        )
    return backend


def backend_option(function: F) -> F:
    """``--backend``, as ``backend``."""
    return click.option(
        "-b",
        "--backend",
        shell_complete=complete_backend,
        metavar="NAME",
        help="The hardware: one of `embedl-deploy backends`. May be left out where only one is installed.",
    )(function)


def rewrite_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """``--backend``, ``--plan``, ``--trace``, ``--verify-capture`` and ``--strict``, as ``rewrites``."""

    @functools.wraps(function)
    def run(
        *,
        backend: str | None,
        plan: Path | None,
        trace: str,
        strict: bool,
        verify_capture: bool,
        dynamic: tuple[OpenDimension, ...],
        **rest: Any,
    ) -> Any:
        return function(rewrites=Rewrites(backend, plan, Trace(trace), strict, verify_capture, dynamic), **rest)

    return with_options(
        run,
        backend_option,
        click.option("--plan", type=InputFile(), metavar="FILE", help="Decisions: what `plan -o FILE` wrote, edited."),
        click.option(
            "--trace",
            type=click.Choice([kind.value for kind in Trace]),
            default=Trace.AUTO.value,
            show_default=True,
            help="How to capture the model.",
        ),
        click.option(
            "--verify-capture/--no-verify-capture",
            default=True,
            show_default=True,
            help="Run the model and the captured graph on the example inputs, if there are any, and compare.",
        ),
        click.option(
            "--dynamic",
            multiple=True,
            callback=open_dimensions,
            metavar="[NAME:]DIM=LABEL[:MIN-MAX]",
            help="Leave a dimension of an input open, such as ids:1=length:2-512. Those of one label have one size. "
            "Repeatable.",
        ),
        click.option("--strict", is_flag=True, help="Stop when a pattern fails, instead of reporting it."),
    )


def subject_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """MODEL and the options for it and its inputs, as ``subject``: a function that loads it."""

    @functools.wraps(function)
    def run(
        *,
        model: str,
        model_arg: Sequence[str],
        state_dict: Path | None,
        allow_pickle: bool,
        input: Sequence[str],
        inputs: Path | None,
        **rest: Any,
    ) -> Any:
        def load() -> Subject:
            if input and inputs is not None:
                raise InputError("--input and --inputs both give the example inputs; pass one of them.")
            loaded = ModelName(model, read_arguments(model_arg), state_dict, allow_pickle).load()
            if inputs is not None:
                return Subject(loaded, *inputs_from_file(loaded, inputs))
            if input:
                return Subject(loaded, *inputs_from_shapes(loaded, input))
            return Subject(loaded, None, {})

        return function(subject=load, **rest)

    return with_options(
        run,
        click.argument("model", type=ModelSource(), metavar="MODEL"),
        click.option(
            "--model-arg",
            multiple=True,
            metavar="NAME=VALUE",
            help="An argument of the factory, a Python literal or a string. Repeatable.",
        ),
        click.option(
            "--state-dict", type=InputFile(), metavar="FILE", help="Weights for the model: .safetensors, .pt or .pth."
        ),
        click.option(
            "--allow-pickle", is_flag=True, help="Load pickled objects from model files, which can run any code."
        ),
        click.option(
            "-i",
            "--input",
            multiple=True,
            metavar="[NAME=]SHAPE[:TYPE]",
            help="An example input such as 1,3,224,224 or ids=1,128:int64. Repeatable, in order.",
        ),
        click.option("--inputs", type=InputFile(), metavar="FILE", help="Example inputs: an .npz or .npy file."),
    )


def output_option(help_text: str, *companions: str, required: bool = False) -> Callable[[F], F]:
    """``-o``, as ``output_path``; ``companions`` are endings of the names of what is written beside it."""
    kind = OutputFile(*companions)
    return click.option("-o", "--output", "output_path", type=kind, metavar="FILE", required=required, help=help_text)


def with_options(function: Callable[..., Any], *options: Callable[[Any], Any]) -> Callable[..., Any]:
    """A function with decorators that are listed from top to bottom."""
    for option in reversed(options):
        function = option(function)
    return function
