"""The check of a pattern on variations of its examples."""

from collections.abc import Iterator

import torch
from torch import nn

from embedl_deploy.patterns import Example, MatchStatus
from embedl_deploy.testing.agreement import require_same_training
from embedl_deploy.testing.failures import DoesNotApply, trying
from embedl_deploy.testing.subjects import PatternSubject, declared
from embedl_deploy.testing.tensors import draws_random_numbers, require_same, run, with_distinct_weights
from embedl_deploy.testing.variants import settings_of, structures_of, surroundings_of, varied
from embedl_deploy.verify import output_tensors


def keeps_numbers_of_variants(subject: PatternSubject) -> str:
    """Wherever the pattern still applies to a variation of an example, the outputs stay, in both modes.

    Returns:
        How many variations there were, and to how many the pattern applies.
    """
    examples = list(declared(subject.pattern.examples(), "example"))
    if not examples:
        raise DoesNotApply("it declares no examples")
    tried = applied = 0
    seen: set[str] = set()
    for where, example in examples:
        for variant, both_modes in _variants(subject, example):
            inputs = [(tensor.shape, tensor.dtype) for tensor in output_tensors(variant.args)]
            known = f"{variant.model} {inputs} {where if type(variant.model) is not nn.Sequential else ''}"
            if known in seen:
                continue
            seen.add(known)
            tried += 1
            with trying(f"{where}, with {variant.note}"):
                applied += _compare(subject, variant, both_modes=both_modes)
    return f"applies to {applied} of {tried} variations of {len(examples)} example(s)"


def _variants(subject: PatternSubject, example: Example) -> Iterator[tuple[Example, bool]]:
    """Each change of the structure to which the pattern applies, with each change of a setting; and other inputs.

    With each comes whether it is to be tried in training mode as well: one change at a time is.
    """
    paths = _matched_paths(subject, example)
    for surrounded in surroundings_of(example):
        yield surrounded, False
    structures = []
    for structure in structures_of(example.model, paths):
        changed = varied(example, structure)
        if changed is not None:
            yield changed, True
            if _matched_paths(subject, changed):
                structures.append(changed)
    for base in (example, *structures):
        for setting in settings_of(base.model, paths):
            changed = varied(base, setting) if base is example or setting.is_kernel else None
            if changed is not None:
                note = changed.note if base is example else f"{base.note}, {changed.note}"
                yield Example(changed.model, changed.args, note), base is example


def _matched_paths(subject: PatternSubject, example: Example) -> frozenset[str]:
    """The modules that the pattern takes in an example; none if it does not apply."""
    report = subject.rewrite(example.model.eval(), example).report
    names = {name for match in report.with_status(MatchStatus.APPLIED) for name in match.node_names}
    calls = report.plan.model.graph.find_nodes(op="call_module")
    return frozenset(str(node.target) for node in calls if node.name in names)


def _compare(subject: PatternSubject, example: Example, *, both_modes: bool) -> bool:
    """Compare numbers, if the pattern applies; gives whether it does."""
    model = with_distinct_weights(example.model)
    result = subject.rewrite(model, example)
    if not result.report.with_status(MatchStatus.APPLIED):
        return False
    with torch.no_grad():
        require_same(run(model, example.args), run(result.model, example.args))
    if both_modes and any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in model.modules()):
        trained = with_distinct_weights(example.model, training=True)
        if _trains(trained, example) and not draws_random_numbers(trained, example.args):
            require_same_training(trained, subject.rewrite(trained, example).model, example.args)
    return True


def _trains(model: nn.Module, example: Example) -> bool:
    """Whether the model takes its inputs in training mode; a batch norm wants more than one value per channel."""
    try:
        with torch.no_grad():
            run(with_distinct_weights(model, training=True), example.args)
    except ValueError:
        return False
    return True
