"""A compiler that needs no machine and no library."""

import onnx as onnx_package

from embedl_deploy.backend import Build, Compiler
from embedl_deploy.engine import LayerKind
from support.engines import layer


class Acme(Compiler):
    """Makes one layer of every node."""

    def __init__(self, name="acme", missing=None, refusal=None):
        self.name, self._missing, self.refusal, self.options = name, missing, refusal, None

    def missing(self):
        return self._missing

    def describe(self):
        return f"{self.name} 1.0"

    def command(self, onnx, engine, options):
        return f"acmec {onnx.name}"

    def build(self, onnx, options, progress):
        self.options = options
        progress("building", 1, 1)
        if self.refusal is not None:
            raise self.refusal
        names = [node.name for node in onnx_package.load(str(onnx)).graph.node]
        layers = tuple(layer(f"kernel {name}", LayerKind.OTHER, onnx_nodes=(name,)) for name in names)
        return Build(b"engine", layers, options.target or "edge", 0.1, ("mind the gap",))
