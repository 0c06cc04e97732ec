"""The result of a capture."""

from dataclasses import dataclass

from torch import fx

from embedl_deploy.validation.checked import checked

#: ``graph_module.meta`` entry of a graph that ``torch.export`` made because the model cannot be traced symbolically.
NOT_SYMBOLIC = "embedl_deploy.not_symbolic"


@checked
@dataclass(frozen=True)
class Captured:
    """A captured model.

    Attributes:
        graph_module: The graph, with its own copy of all parameters.
        method: ``"symbolic"``, ``"export"`` or ``"given"`` (a graph module was passed).
        notes: What the user should know about how it went.
    """

    graph_module: fx.GraphModule
    method: str
    notes: tuple[str, ...] = ()
