"""What is kept of a finished block, as plain values: enough to go on without it, and to make the model's recipe."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import fx

from embedl_deploy.quantize.grid.findings import Finding
from embedl_deploy.quantize.ownership import shared_no_longer, tensors_of
from embedl_deploy.quantize.recipe import QuantizationRecipe, quantization_recipe
from embedl_deploy.quantize.reporting.corrections import recorded_correction
from embedl_deploy.quantize.reporting.report import PointReport, QuantizationReport
from embedl_deploy.shards.block_quantization import QuantizedBlock
from embedl_deploy.shards.report import BlockReport


@dataclass(frozen=True)
class Finished:
    """A finished block.

    Attributes:
        report: Its name, file and sizes.
        recipe: Of the block alone.
        corrections: What was done to keep accuracy.
        findings: What calibration noticed: tensor, words, whether it is serious.
        vanishing: Tensors with a known range, and the share of their sum that is rounded to zero.
        whole: The names, in the model, of tensors that are all of a tensor in the shards, by its name there.
        untouched: Those names, and names of tensors that were that before they became integers.
        files: In which file each tensor is.
        stubs: The path of each point's quantizer, by node and place.
    """

    report: dict[str, Any]
    recipe: dict[str, Any]
    corrections: list[dict[str, str | None]]
    findings: list[tuple[str, str, bool]]
    vanishing: list[tuple[str, float]]
    whole: dict[str, str]
    untouched: list[str]
    files: dict[str, str]
    stubs: dict[str, str]

    @staticmethod
    def of(
        block: QuantizedBlock, report: BlockReport, loaded: Mapping[int, str], files: Mapping[str, str]
    ) -> "Finished":
        """What to keep of a block; ``loaded`` has the names of tensors in the shards by the ids of what was read."""
        state = block.model.state_dict(keep_vars=True)
        whole = {name: loaded[id(tensor)] for name, tensor in state.items() if id(tensor) in loaded}
        untouched = [name for name, tensor in block.before_freezing.items() if tensor in loaded]
        recipe = asdict(quantization_recipe(block.model))
        findings = [(finding.tensor, finding.what, finding.serious) for finding in block.report.findings]
        vanishing = [(name, float(share)) for name, share in block.report.vanishing]
        corrections = [correction.to_dict() for correction in block.corrections]
        stubs = {place_of(point): point.stub for point in block.report.points}
        return Finished(
            dict(vars(report)), recipe, corrections, findings, vanishing, whole, untouched, dict(files), stubs
        )


def place_of(point: PointReport) -> str:
    """Names a point of a model."""
    return f"{point.node} {point.path} {point.label}"


def joined_recipe(backend: str | None, blocks: Sequence[Finished], order: Mapping[str, int]) -> QuantizationRecipe:
    """The recipe of the whole model.

    Args:
        backend: That it was transformed for.
        blocks: All of its blocks.
        order: The place of each point in the report, by path and label.
    """
    points = [point for block in blocks for point in block.recipe["points"]]
    points.sort(key=lambda point: order[f"{point['node']} {point['path']} {point['label']}"])
    tensors: dict[str, str] = {}
    shared: dict[str, str] = {}
    first: dict[str, str] = {}
    for block in blocks:
        shared |= block.recipe["shared"]
        for name, shape in block.recipe["tensors"].items():
            known = first.setdefault(block.whole[name], name) if name in block.whole else name
            tensors[name] = shape if known == name else f"= {known}"
    return QuantizationRecipe(
        backend=backend,
        policy=blocks[0].recipe["policy"],
        points=tuple(points),
        scaled=tuple(entry for block in blocks for entry in block.recipe["scaled"]),
        folded=tuple(path for block in blocks for path in block.recipe["folded"]),
        tensors=tensors,
        shared=shared,
        frozen=any(block.recipe["frozen"] for block in blocks),
        corrections=tuple(_corrections(blocks)),
    )


def joined_report(model: fx.GraphModule, whole: QuantizationReport, blocks: Sequence[Finished]) -> QuantizationReport:
    """The report of the whole model, with what was done in the blocks and noticed there."""
    before = tensors_of(model)
    untouched = {name: before[name] for block in blocks for name in block.untouched if name in before}
    changed = {name: "" for name in before if name not in untouched}
    stubs = {place: stub for block in blocks for place, stub in block.stubs.items()}
    return replace(
        whole,
        points=tuple(replace(point, stub=stubs[place_of(point)]) for point in whole.points),
        corrections=tuple(map(recorded_correction, _corrections(blocks))),
        findings=(
            *(Finding(*finding) for block in blocks for finding in block.findings),
            *shared_no_longer(before, {**untouched, **changed}),
        ),
        vanishing=tuple((name, share) for block in blocks for name, share in block.vanishing),
    )


def _corrections(blocks: Sequence[Finished]) -> list[dict[str, str | None]]:
    """Those of one method after the other, as a model in memory is corrected."""
    found = [correction for block in blocks for correction in block.corrections]
    methods = list(dict.fromkeys(correction["what"] for correction in found))
    return sorted(found, key=lambda correction: methods.index(correction["what"]))
