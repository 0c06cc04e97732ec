"""Laws of plans: they survive JSON, and every part of one may be switched off."""

from embedl_deploy import apply_transformation_plan, get_transformation_plan, load_transformation_plan
from fuzz.laws.law import Broken, law
from fuzz.laws.subject import Subject


@law(share=0.3)
def plan_as_json(subject: Subject) -> None:
    """A plan with some of its matches switched off, through JSON, gives the same model; which computes the same."""
    args, kwargs = subject.inputs(0)
    plan = get_transformation_plan(subject.make(), args, kwargs=kwargs, backend=subject.backend)
    rng = subject.rng("plan")
    for row in plan.matches.values():
        for match in row.values():
            match.apply = match.apply and rng.random() < 0.6
    text = plan.to_json()
    loaded = load_transformation_plan(text, subject.make(), args, kwargs=kwargs)
    if loaded.to_json() != text:
        raise Broken("a plan that was loaded from JSON gives other JSON")
    first, second = apply_transformation_plan(plan), apply_transformation_plan(loaded)
    if str(first.report) != str(second.report):
        raise Broken("a plan that was loaded from JSON is carried out otherwise")
    subject.agree(subject.run(first.model), subject.outputs, "some matches switched off")
    subject.agree(subject.run(second.model), subject.outputs, "some matches switched off, through JSON")


@law(share=0.1)
def disabled(subject: Subject) -> None:
    """Where a match is disabled, the next in line takes its nodes, and the model computes the same."""
    args, kwargs = subject.inputs(0)
    plan = get_transformation_plan(subject.make(), args, kwargs=kwargs, backend=subject.backend)
    applied = [(node, name) for node, row in plan.matches.items() for name, match in row.items() if match.apply]
    rng = subject.rng("disable")
    for node, name in rng.sample(applied, min(2, len(applied))):
        if plan.matches[node][name].apply:
            plan.disable(node, name)
    subject.agree(subject.run(apply_transformation_plan(plan).model), subject.outputs, "matches disabled")
