"""Checks that a pattern matches its examples and not its near misses."""

import torch
from torch import nn

from embedl_deploy.patterns import Example
from embedl_deploy.pipeline import transform
from embedl_deploy.plan.result import TransformationResult
from embedl_deploy.testing.failures import ConformanceFailure, DoesNotApply, trying
from embedl_deploy.testing.subjects import PatternSubject, declared, for_each_example
from embedl_deploy.testing.tensors import run
from embedl_deploy.verify import output_tensors


def declares_examples(subject: PatternSubject) -> None:
    """There is an example; each has a batch, gives numbers that differ, and is made again at each call."""
    once = list(declared(subject.pattern.examples(), "example"))
    again = list(declared(subject.pattern.examples(), "example"))
    if not once:
        raise ConformanceFailure("examples() gives none", "at least one")
    if len(once) != len(again):
        raise ConformanceFailure(f"examples() gives {len(once)}, then {len(again)}", "the same number each time")
    for (where, example), (_, other) in zip(once, again, strict=True):
        with trying(where):
            _require_new(example, other)
            _require_telling(example)


def _require_new(example: Example, other: Example) -> None:
    if example.model is other.model:
        raise ConformanceFailure("examples() gives the same module twice", "a new one at each call")


def _require_telling(example: Example) -> None:
    tensors = [value for value in example.args if isinstance(value, torch.Tensor)]
    if not tensors or any(tensor.dim() == 0 or tensor.shape[0] < 2 for tensor in tensors[:1]):
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors) or "no tensors"
        raise ConformanceFailure(f"its inputs are {shapes}", "a first input with a batch of at least two")
    with torch.no_grad():
        outputs = [t for t in output_tensors(run(example.model.eval(), example.args)) if t.is_floating_point()]
    if not any(bool((output != output.flatten()[:1]).any()) for output in outputs) or not all(
        o.isfinite().all() for o in outputs
    ):
        raise ConformanceFailure("its outputs are all the same number, or not finite", "finite numbers that differ")


def declares_near_misses(subject: PatternSubject) -> None:
    """There is a near miss, and each says why it is one."""
    found = list(declared(subject.pattern.near_misses(), "near miss"))
    if not found:
        raise ConformanceFailure("near_misses() gives none", "at least one")
    for where, example in found:
        if not example.note.strip():
            raise ConformanceFailure("its note is empty", "why the pattern leaves it alone", where)


def _matched(subject: PatternSubject, example: Example) -> list[str]:
    """Where the pattern matches, alone, as chains of node names."""
    matches = subject.rewrite(example.model.eval(), example).report.matches
    return [" → ".join(match.node_names) for match in matches if match.pattern_name == subject.pattern.name]


@for_each_example
def matches_each_example_once(subject: PatternSubject, example: Example) -> None:
    """The pattern, alone, matches at exactly one place."""
    places = _matched(subject, example)
    if len(places) != 1:
        refusals = [str(refusal) for refusal in subject.rewrite(example.model, example).report.declined]
        found = f"{len(places)} matches ({'; '.join(places)})" if places else "no match"
        raise ConformanceFailure("; ".join([found, *refusals]), "exactly one match")


def declines_near_misses(subject: PatternSubject) -> None:
    """The pattern, alone, matches nowhere."""
    found = list(declared(subject.pattern.near_misses(), "near miss"))
    if not found:
        raise DoesNotApply("it declares no near misses")
    for where, example in found:
        with trying(where):
            places = _matched(subject, example)
            if places:
                raise ConformanceFailure(f"a match ({'; '.join(places)})", "no match")


def is_reached(subject: PatternSubject) -> None:
    """Among all patterns of the backend, it still has one of its examples."""
    taken: list[str] = []
    examples = list(declared(subject.pattern.examples(), "example"))
    if not examples:
        raise DoesNotApply("it declares no examples")
    for where, example in examples:
        with trying(where):
            result = transform(example.model.eval(), example.args, backend=subject.backend)
        names = [entry["pattern"] for entry in result.report["applied"]]
        if subject.pattern.name in names:
            return
        taken.append(f"{where}: {', '.join(dict.fromkeys(names)) or 'nothing'} applied")
    raise ConformanceFailure("; ".join(taken), f"{subject.pattern.name} applied in at least one example")


@for_each_example
def is_idempotent(subject: PatternSubject, example: Example) -> None:
    """A second transformation of the result applies nothing."""
    result = subject.rewrite(example.model.eval(), example)
    require_settled(result, subject.rewrite(result.model, example))


def require_settled(first: TransformationResult, second: TransformationResult) -> None:
    """Raise if ``second``, a transformation of the result of ``first``, has applied anything.

    Raises:
        ConformanceFailure: It has.
    """
    again = [f"{entry['pattern']} at {' → '.join(entry['nodes'])}" for entry in second.report["applied"]]
    if again:
        raise ConformanceFailure(
            f"after {first.report['applied_count']} rewrites, {len(again)} more: {'; '.join(again)}", "none"
        )


@for_each_example
def leaves_users_model_alone(subject: PatternSubject, example: Example) -> None:
    """Transforming changes nothing of the model that was passed, of the inputs, or of the random state."""
    model = example.model.eval()
    model.train()  # what is forced into evaluation mode shows, too
    before, inputs, random = _snapshot(model), [t.clone() for t in output_tensors(example.args)], torch.get_rng_state()
    subject.rewrite(model, example)
    changed = [name for name, value in _snapshot(model).items() if not _equal(before.pop(name, None), value)]
    changed += [f"{name} (gone)" for name in before]
    after = output_tensors(example.args)
    changed += [f"input {i}" for i, (a, b) in enumerate(zip(inputs, after, strict=True)) if not torch.equal(a, b)]
    if not torch.equal(random, torch.get_rng_state()):
        changed.append("the state of torch's random number generator")
    if changed:
        raise ConformanceFailure(
            f"changed: {', '.join(changed)}", "the model, its inputs and the random state as before"
        )


def _snapshot(model: nn.Module) -> dict[str, object]:
    """Everything of a model that a transformation could change, by name."""
    found: dict[str, object] = {f"tensor {name}": tensor.clone() for name, tensor in model.state_dict().items()}
    found.update({f"requires_grad of {name}": p.requires_grad for name, p in model.named_parameters()})
    for path, module in model.named_modules():
        where = path or "the model"
        found[f"class of {where}"] = type(module)
        found[f"training mode of {where}"] = module.training
        found[f"hooks of {where}"] = (len(module._forward_hooks), len(module._forward_pre_hooks))
        found[f"attributes of {where}"] = sorted(vars(module))
    return found


def _equal(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return torch.equal(a.nan_to_num(), b.nan_to_num())
    return a == b
