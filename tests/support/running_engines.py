"""A compiler whose engines run: they add their two inputs, in times that are known."""

import torch

from embedl_deploy.backend import LoadedEngine
from embedl_deploy.engine import EngineTensor
from support.compilers import Acme

X = EngineTensor("x", (-1, 3), "float32")
Y = EngineTensor("y", (3,), "float32")
SUM = EngineTensor("sum", (-1, 3), "float32")


class Adding(LoadedEngine):
    """An engine that adds.

    Args:
        log: Where the calls are noted.
        name: What it is called there.
        times: Of its runs, one after the other, over and over.
        threads: What it was asked for.
    """

    def __init__(self, log, name="", times=(1e-3,), threads=None):
        self.inputs, self.outputs, self.threads = (X, Y), (SUM,), threads
        self.log, self.name, self.times, self.place = log, name, times, 0

    def run(self, inputs):
        self.log.append(f"run {self.name}".strip())
        return [inputs[0] + inputs[1]]

    def time(self, inputs, runs, seconds):
        self.log.append(f"time {self.name}".strip())
        found = [self.times[(self.place + each) % len(self.times)] for each in range(max(runs, round(seconds * 10)))]
        self.place += len(found)
        return found


class Runs(Acme):
    """Its engines are files with the times of their runs, in milliseconds."""

    suffix = ".acme"

    def __init__(self, loaded=None, **fields):
        super().__init__(**fields)
        self.log, self.loaded = [], loaded

    def load(self, engine, threads):
        if self.loaded is not None:
            return self.loaded
        times = tuple(float(each) / 1e3 for each in engine.read_text().split())
        return Adding(self.log, engine.stem, times, threads)


INPUTS = (torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([10.0, 20.0, 30.0]))
