"""Times an engine, and its nodes with the runtime's own profiler."""

import json
import statistics
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedl_deploy_onnxruntime.compiler.sessions import make_session

#: Runs before those that count.
_WARM_UP = 3
#: At least and at most so many runs count, and in between as many as take so long.
_LEAST, _MOST, _SECONDS = 5, 100, 2.0
#: The profiler keeps a million events and forgets what comes then.
_MOST_EVENTS = 500_000
_ENDING = "_kernel_time"


@dataclass(frozen=True)
class NodeTime:
    """What the profiler says of a node.

    Attributes:
        seconds: How long it takes, the median of several runs, to a millionth of a second.
        outputs: Types and shapes of the tensors that it wrote, in the runtime's words.
        place: When it ran, among the others.
    """

    seconds: float
    outputs: tuple[tuple[str, tuple[int, ...]], ...]
    place: int


def measure(
    engine: Path, level: int, threads: int | None, feed: Mapping[str, Any], nodes: int
) -> tuple[list[float], dict[str, NodeTime]]:
    """The time of runs of an engine in seconds, and its nodes by name, as they ran.

    The profiler takes time itself, so whole runs are timed without it; runs with it and without it take turns, so what
    slows the machine down for a while slows both.

    Args:
        engine: The file.
        level: A ``GraphOptimizationLevel``.
        threads: How many compute an operator.
        feed: Inputs by name.
        nodes: How many nodes the engine has.
    """
    plain = make_session(engine, level, threads)
    profiled = make_session(engine, level, threads, profile=engine.with_name("profile"))
    most = min(_WARM_UP + _MOST, max(_MOST_EVENTS // max(nodes, 1), 1))
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < most and (len(times) < _WARM_UP + _LEAST or time.perf_counter() - began < _SECONDS):
        profiled.run(None, feed)
        start = time.perf_counter()
        plain.run(None, feed)
        times.append(time.perf_counter() - start)
    written = Path(profiled.end_profiling())
    return times[_WARM_UP:] or times, _read(json.loads(written.read_text(encoding="utf-8")))


def _read(events: Sequence[Mapping[str, Any]]) -> dict[str, NodeTime]:
    found: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and str(event["name"]).endswith(_ENDING):
            found[str(event["name"]).removesuffix(_ENDING)].append(event)
    times = {}
    for place, (name, each) in enumerate(found.items()):
        counted = [event["dur"] for event in each[_WARM_UP:]] or [event["dur"] for event in each]
        listed = each[-1]["args"]["output_type_shape"]
        written = tuple((kind, tuple(shape)) for each_of_them in listed for kind, shape in each_of_them.items())
        times[name] = NodeTime(statistics.median(counted) / 1e6, written, place)
    return times
