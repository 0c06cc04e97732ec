"""A graph module to be rewritten."""

from typing import Any

from embedl_deploy.graph.storable import StorableGraphModule


class WorkingGraphModule(StorableGraphModule):
    """A graph module that generates its code when somebody wants to run or read it, not after every edit.

    Between capture and the last rewrite nobody does, as a rule, and generating code takes longer than most rewrites.
    """

    def recompile(self) -> None:  # type: ignore[override]  # fx returns the code, and nobody takes it
        """Note that the code is out of date."""
        type(self).forward = WorkingGraphModule.forward  # type: ignore[method-assign]  # fx makes a class per instance

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Generate the code, which takes the place of this method, and run it."""
        super().recompile()
        return self(*args, **kwargs)

    @property
    def code(self) -> str:
        """The code of the graph as it is now."""
        return str(super().recompile().src)
