"""The check of a pattern on its examples as torch.export.export gives them: it matches there, too, keeping the numbers.

Users pass programs that they exported themselves, and functions are calls of ATen in every graph that torch.export
made; a pattern that does not match there leaves them in float silently. What torch.export takes apart or computes
beforehand is no longer there to be matched, and is not asked for.
"""

import torch
from torch import fx, nn
from torch._ops import OpOverload, OpOverloadPacket

from embedl_deploy.graph.functional import FAMILIES
from embedl_deploy.graph.lookup import get_module, is_plain_torch_module
from embedl_deploy.graph.metadata import shape_of
from embedl_deploy.graph.operators import operation
from embedl_deploy.patterns import Example, MatchStatus
from embedl_deploy.plan.result import TransformationResult
from embedl_deploy.testing.failures import ConformanceFailure, DoesNotApply, trying
from embedl_deploy.testing.subjects import PatternSubject, declared
from embedl_deploy.testing.tensors import require_same, run, with_distinct_weights

#: Classes of modules as which calls of functions are read. The class of all modules is that of forms of several kinds.
_CLASSES_OF_CALLS = tuple(
    {form.module_class for forms in FAMILIES.values() for form in forms if form.module_class is not nn.Module}
)


def matches_exported_graphs(subject: PatternSubject) -> str:
    """The pattern applies to what torch.export makes of each example, and the outputs stay.

    Returns:
        To how many examples it applies so, and why not to the others.
    """
    examples = list(declared(subject.pattern.examples(), "example"))
    if not examples:
        raise DoesNotApply("it declares no examples")
    applied, excuses = 0, dict[str, None]()
    for where, example in examples:
        with trying(f"{where}, captured by torch.export"):
            model = with_distinct_weights(example.model)
            try:
                program = torch.export.export(model, example.args)
            except Exception:  # noqa: BLE001 - torch.export may raise anything, and the model's code as well
                excuses["torch.export does not take the model"] = None
                continue
            result = subject.rewrite(program, example)
            if not result.report.with_status(MatchStatus.APPLIED):
                excuse = _excuse(subject, example)
                if excuse is None:
                    raise ConformanceFailure(
                        f"no match: {_why_not(subject, result)}", "a match, as in the graph that is traced symbolically"
                    )
                excuses[excuse] = None
                continue
            applied += 1
            with torch.no_grad():
                require_same(run(model, example.args), run(result.model, example.args))
    others = f" ({'; '.join(excuses)})" if excuses else ""
    return f"applies to {applied} of {len(examples)} example(s) as torch.export gives them{others}"


def _excuse(subject: PatternSubject, example: Example) -> str | None:
    """Why a pattern need not match what torch.export makes of an example, or ``None`` if it must."""
    report = subject.rewrite(example.model.eval(), example).report
    applied = report.with_status(MatchStatus.APPLIED)
    if not applied:
        return "it does not match what is traced symbolically either"
    matched = {name for match in applied for name in match.node_names}
    nodes = [node for node in report.plan.model.graph.nodes if node.name in matched]
    return next((excuse for node in nodes if (excuse := _gone(node)) is not None), None)


def _gone(node: fx.Node) -> str | None:
    """What torch.export does with a node that it leaves nothing of, in words."""
    module = get_module(node) if node.op == "call_module" else None
    if module is not None and not (is_plain_torch_module(module) and isinstance(module, _CLASSES_OF_CALLS)):
        return f"torch.export takes {type(module).__name__} apart"
    if callable(operation(node)) and not isinstance(node.target, (OpOverload, OpOverloadPacket)):
        return f"torch.export takes {getattr(node.target, '__name__', node.target)}() apart"
    if module is None and shape_of(node) is None:
        return f"torch.export computes {getattr(node.target, '__name__', node.target)} beforehand"
    return None


def _why_not(subject: PatternSubject, result: TransformationResult) -> str:
    """Why a pattern does not match anywhere, in the words of the report."""
    name, graph = subject.pattern.name, result.report.plan.converted.graph
    reasons = [str(refusal) for refusal in result.report.declined]
    calls = [node for node in graph.nodes if node.op.startswith("call_") and shape_of(node) is not None]
    answers = (answer for node in calls for answer in result.report.answers(node.name, name))
    reasons += dict.fromkeys(str(answer) for answer in answers if answer.pattern == name)
    kinds = dict.fromkeys(str(getattr(node.target, "__name__", node.target)) for node in calls)
    return "; ".join(reasons[:3]) or f"no node is what its tree has; there are {', '.join(kinds)}"
