"""The error message for a file that a compiler refuses: the node, its module, the rule that explains it, what to do."""

from pathlib import Path
from typing import TYPE_CHECKING

from embedl_deploy.artifact import users_module_of
from embedl_deploy.backend import Compiler, CompilerRefusedError, Severity
from embedl_deploy.checking import check
from embedl_deploy.compiling.guarded import CompilerEndedError
from embedl_deploy.errors import CompileError

if TYPE_CHECKING:
    import onnx_ir as ir

    from embedl_deploy.checking import Finding


def explained(
    refusal: CompilerRefusedError, compiler: Compiler, backend: str, path: Path, model: "ir.Model"
) -> CompileError:
    """The error to raise for a refusal."""
    nodes = {node.name: node for node in model.graph.all_nodes() if node.name}
    named = next((nodes[name] for name in refusal.nodes if name in nodes), None)
    around = _around(named) if named is not None else set()
    findings = check(model, backend=backend).findings
    fitting = [finding for finding in findings if finding.node in around] or [
        f for f in findings if f.severity is Severity.ERROR
    ]
    did = "crashes on" if isinstance(refusal, CompilerEndedError) else "refuses"
    lines = [f"{compiler.describe()} {did} {path.name}."]
    if named is not None:
        module = users_module_of(named)
        place = f", from module {module!r}" if module else ""
        lines.append(f"  At: ONNX node {named.name!r} ({named.op_type}){place}")
    lines += [f"  It says: {message}" for message in refusal.messages[:3]]
    for finding in fitting[:3]:
        lines += [f"  {_name(finding)}", f"    What to do: {finding.remedy}"]
    if refusal.advice is not None:
        lines.append(f"  {refusal.advice}")
    elif not fitting:
        lines.append("  No rule of the checker explains it. Report it together with the file, or remove the module.")
    return CompileError(
        "\n".join(lines),
        node=named.name if named is not None else None,
        module=users_module_of(named) if named is not None else None,
        rules=tuple(finding.rule for finding in fitting[:3]),
        messages=refusal.messages,
    )


def _name(finding: "Finding") -> str:
    place = f" at module {finding.module!r}" if finding.module else ""
    return f"Rule {finding.rule}{place}: {finding.message}"


def _around(node: "ir.Node") -> set[str]:
    """Names of a node, of what computes its inputs and of what reads its outputs: compilers name any of them."""
    producers = [value.producer() for value in node.inputs if value is not None]
    consumers = [consumer for value in node.outputs for consumer, _ in value.uses()]
    beyond = [value.producer() for p in producers if p is not None for value in p.inputs if value is not None]
    return {found.name for found in (node, *producers, *consumers, *beyond) if found is not None and found.name}
