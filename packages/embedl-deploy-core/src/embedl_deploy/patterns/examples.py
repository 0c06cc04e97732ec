"""Small models that show what a pattern is for: read by people, drawn in documentation, tried by the test kit."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from embedl_deploy.validation.checked import checked


@checked
@dataclass(frozen=True)
class Example:
    """A model that a pattern matches, or a near miss that it must not match.

    Attributes:
        model: A module that capture takes. Its weights should not be all equal: agreement of zeros shows nothing.
        args: Inputs to call it with; a batch of at least two, so that a mistake between samples is seen.
        note: What it shows; for a near miss, why the pattern leaves it alone.
    """

    model: nn.Module
    args: tuple[Any, ...]
    note: str = ""
