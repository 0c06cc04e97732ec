"""Laws of capture and fusion: the rewritten model computes what the user's model computes."""

from typing import Any

from torch import nn

from embedl_deploy import transform
from fuzz.laws.law import Broken, LeftOut, law
from fuzz.laws.subject import Subject, same_structure


@law()
def eval_symbolic(subject: Subject) -> None:
    """Captured by torch.fx, in evaluation mode."""
    result = subject.transform(trace="symbolic")
    subject.agree(subject.run(result.model), subject.outputs, "evaluation mode, symbolic")


@law(share=0.2)
def eval_export(subject: Subject) -> None:
    """Captured by torch.export, in evaluation mode."""
    result = subject.transform(trace="export")
    subject.agree(subject.run(result.model), subject.outputs, "evaluation mode, export")


@law(share=0.5)
def eval_auto(subject: Subject) -> None:
    """Captured either way, and what ``verify`` says is true."""
    subject.agree(subject.run(subject.result.model), subject.outputs, "evaluation mode, auto")
    args, kwargs = subject.inputs(1)
    told = subject.result.verify(*args, **kwargs)
    if not told.max_rel <= max(subject.tolerance, 1e-3):
        raise Broken(f"verify() says {told} where the outputs are equal")


@law(share=0.3)
def no_examples(subject: Subject) -> None:
    """Without example inputs.

    Optional inputs are then fixed to their defaults and any number of inputs is unknown, so networks that are called
    with such inputs are left out.
    """
    _, kwargs = subject.inputs(0)
    model = subject.make()
    parameters = model.forward.__code__.co_flags & 0x0C  # *args, **kwargs
    if kwargs or parameters:
        raise LeftOut
    result = transform(model, backend=subject.backend)
    subject.agree(subject.run(result.model), subject.outputs, "without example inputs")


@law(share=0.5)
def second_transform(subject: Subject) -> None:
    """A second transformation finds nothing to do, and the model computes the same."""
    again = subject.transform(subject.result.model)
    if again.report["applied_count"]:
        raise Broken(f"a second transformation applies {[entry['pattern'] for entry in again.report['applied']]}")
    subject.agree(subject.run(again.model), subject.run(subject.result.model), "transformed twice")


@law(share=0.3)
def other_seed(subject: Subject) -> None:
    """The structure of the output is the model's for other inputs as well."""
    same_structure(subject.run(subject.result.model, 2), subject.run(subject.make(), 2), "other inputs")


class _Several(nn.Module):
    """A network that holds others, and gives the outputs of all."""

    def __init__(self, parts: list[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The outputs, by part."""
        return [part(*args, **kwargs) for part in self.parts]


@law(share=0.3)
def as_a_part(subject: Subject) -> None:
    """Several of it are parts of another network: what a function is replaced by lies in the module that calls it."""
    if subject.inputs(0)[1]:
        raise LeftOut
    model = _Several([subject.make() for _ in range(3)]).eval()
    result = subject.transform(model)
    subject.agree(subject.run(result.model), subject.run(model), "as parts of another")
