"""The few figures at the head of a page."""

from collections.abc import Iterator

from embedl_deploy.page.html import Html, tag
from embedl_deploy.page.run import Run
from embedl_deploy.page.words import duration, number, size

#: Unit and name of what sensitivity measures.
_METRICS = {"sqnr": (" dB", "SQNR"), "kl": (" nats", "KL divergence"), "evaluate": ("", "your measure")}


def summary(run: Run) -> Html | None:
    """Figures, each with what it counts."""
    tiles = [tag("div", tag("dd", figure), tag("dt", said)) for figure, said in _figures(run)]
    return tag("dl", tiles, class_="tiles") if tiles else None


def subtitle(run: Run) -> str:
    """What the run is of."""
    engine, done = run.engine, run.transformation
    return " · ".join(
        part
        for part in (
            done.model if done else "",
            f"backend {done.backend}" if done and done.backend else "",
            f"{done.capture} capture" if done and done.capture else "",
            f"{engine.model} by {engine.compiler} for {engine.target}" if engine else "",
        )
        if part
    )


def _figures(run: Run) -> Iterator[tuple[object, str]]:
    if run.transformation is not None:
        yield len(run.transformation.applied), "rewrites"
    if run.quantization is not None:
        points = run.quantization.points
        yield f"{sum(bool(point.config) for point in points)} of {len(points)}", "points quantized"
    if run.engine is not None:
        if run.engine.seconds is not None:
            yield duration(run.engine.seconds), "a run"
        yield run.engine.kernels, "kernels"
        yield size(run.engine.activation_bytes), "activations moved"
        yield size(run.engine.engine_bytes), "engine"
    if run.comparison is not None and run.comparison.first.seconds and run.comparison.second.seconds:
        ratio = run.comparison.first.seconds / run.comparison.second.seconds
        yield f"{ratio:.2f} ×", f"as fast as {run.comparison.first.model}"
    elif run.comparison is not None and run.comparison.first.activation_bytes:
        ratio = run.comparison.second.activation_bytes / run.comparison.first.activation_bytes
        yield f"{ratio:.2f} ×", f"the activations of {run.comparison.first.model}"
    if run.sensitivity is not None:
        metric = run.sensitivity.metric
        unit, name = _METRICS.get(metric, ("", metric))
        yield f"{number(run.sensitivity.quantized)}{unit}", f"{name}, all quantized"
    if run.check is not None:
        yield len(run.check.findings), "findings of the check"
    if run.float32 is not None:
        yield len(run.float32.nodes), "calls in float32"
