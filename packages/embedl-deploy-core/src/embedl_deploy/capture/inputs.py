"""The arguments for tracing a model: proxies for its inputs, values for fixed inputs.

A proxy is never ``None``, and Python does not ask it: ``mask is None`` takes the branch of a mask that is given. So an
input that has a default, and that no example is given for, is traced as that default; the graph stands for calls
without it and for no others (:mod:`embedl_deploy.graph.fixed_inputs`).
"""

import inspect
from typing import Any

from torch import fx

from embedl_deploy.modules import LeafTracer


class TracedInputs:
    """The inputs of one trace.

    Args:
        tracer: Makes the proxies.
        signature: That of the model's forward.
        example: Example inputs, by position and by keyword; ``None`` if nothing is known of the inputs.
        bound: What comes before the inputs: the model, for a method.

    Attributes:
        fixed: The inputs that are replaced by a value, by name.
        needed: The inputs that are examples of something, by name, and whether they may be left out as ``None``.
        given: The example inputs by the names of parameters; ``None`` if there are none, or they do not fit.
        positional: The parameters that may be given by position.
    """

    def __init__(
        self,
        tracer: LeafTracer,
        signature: inspect.Signature,
        example: tuple[tuple[Any, ...], dict[str, Any]] | None,
        bound: tuple[Any, ...],
    ) -> None:
        self._tracer = tracer
        self._parameters = signature.parameters
        self._fits = True
        self.fixed: dict[str, Any] = {}
        self.needed: dict[str, bool] = {}
        self.given: dict[str, Any] | None = None
        by_position = [p.name for p in signature.parameters.values() if p.kind <= p.POSITIONAL_OR_KEYWORD]
        self.positional = tuple(by_position[len(bound) :])
        if example is not None:
            try:
                self.given = dict(signature.bind(*bound, *example[0], **example[1]).arguments)
            except TypeError:  # told where shapes are propagated, with the names of the inputs
                self._fits = False

    def in_place_of(self, proxies: list[Any]) -> list[Any]:
        """What the model is called with, where ``torch.fx`` has a proxy for each parameter."""
        if not self._fits:
            return proxies
        arguments = [self._known(arg) if isinstance(arg, fx.Proxy) else arg for arg in proxies]
        _keep_last_defaults(self._tracer.graph)
        return arguments

    @property
    def are_all_fixed(self) -> bool:
        """Whether nothing is left of the inputs of a model that has some."""
        return bool(self.fixed) and not self._tracer.graph.find_nodes(op="placeholder")

    def _known(self, arg: fx.Proxy) -> Any:
        """What the model is called with in place of a proxy for an input: that, or the value that it is fixed to."""
        name, given = str(arg.node.target), self.given or {}
        if name.startswith("*"):
            return arg if self.given is None else self._one_for_each(arg, self.given)
        parameter = self._parameters.get(name)
        if parameter is None:  # a part of a nested input
            return arg
        if name in given:
            if given[name] is not None:
                self.needed[name] = parameter.default is None
                return arg
            self.fixed[name] = None
            return None
        if parameter.default is parameter.empty:
            return arg
        self.fixed[name] = parameter.default
        self._tracer.graph.erase_node(arg.node)
        return parameter.default

    def _one_for_each(self, starred: fx.Proxy, given: dict[str, Any]) -> Any:
        """Inputs for each value that goes into ``*args`` or ``**kwargs``, in place of one for all of them."""
        graph, target = self._tracer.graph, str(starred.node.target)
        stars, name = target.count("*"), target.lstrip("*")
        rest = given.pop(name, {} if stars == 2 else ())
        named = dict(rest) if stars == 2 else {f"{name}_{i}": value for i, value in enumerate(rest)}
        place = starred.node
        if stars == 1:  # before the inputs that go by keyword
            by_keyword = {p.name for p in self._parameters.values() if p.kind is p.KEYWORD_ONLY}
            place = next((node for node in graph.nodes if node.target in by_keyword), place)
        with graph.inserting_before(place):
            inputs = {key: self._tracer.create_proxy("placeholder", key, (), {}) for key in named}
        graph.erase_node(starred.node)
        given.update(named)
        values = {key: None if named[key] is None else proxy for key, proxy in inputs.items()}
        self.fixed.update({key: None for key, value in named.items() if value is None})
        return values if stars == 2 else tuple(values.values())


def _keep_last_defaults(graph: fx.Graph) -> None:
    """Take the defaults from inputs that others without one follow; they are among the example inputs."""
    required = False
    for node in reversed(graph.nodes):
        required = required or not node.args
        if required:
            node.args = ()
