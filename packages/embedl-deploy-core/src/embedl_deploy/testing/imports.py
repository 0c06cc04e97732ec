"""Check that importing a backend is cheap: what is heavy or optional is imported where it is used."""

import json
import subprocess
import sys
from importlib import metadata

from embedl_deploy.backend.loader.discovery import PluginSource, installed_plugins
from embedl_deploy.testing.failures import ConformanceFailure, DoesNotApply
from embedl_deploy.testing.subjects import BackendSubject

#: Packages that take long to import, and that no backend needs before a file is written or read.
_HEAVY = frozenset({"onnx", "onnx_ir", "onnxruntime", "onnxscript"})

_PROGRAM = """
import importlib, json, sys
import embedl_deploy.backend
before = set(sys.modules)
importlib.import_module(sys.argv[1])
print(json.dumps(sorted({name.partition(".")[0] for name in set(sys.modules) - before})))
"""


def imports_little(subject: BackendSubject) -> None:
    """A process that imports the plugin does not import ONNX tools, or what the distribution has as extras."""
    name = subject.plugin or subject.backend.name
    sources = [source for source in installed_plugins() if source.name == name]
    if not sources:
        raise DoesNotApply("the backend is not installed as a distribution")
    for source in sources:
        found = sorted(_imported_by(source) & (_HEAVY | _optional(source)))
        if found:
            raise ConformanceFailure(
                f"importing {source.entry_point.module} imports {', '.join(found)}", "none of them"
            )


def _imported_by(source: PluginSource) -> set[str]:
    """Top-level packages that importing a plugin imports beyond what the core has."""
    program = [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}\n{_PROGRAM}", source.entry_point.module]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ConformanceFailure(f"importing {source.entry_point.module} in a new process fails: {last}", "no error")
    return set(json.loads(done.stdout.strip().splitlines()[-1]))


def _optional(source: PluginSource) -> frozenset[str]:
    """Top-level packages of the distributions that a plugin's distribution asks for in an extra only."""
    from packaging.requirements import Requirement  # here: a third of the import of core

    required: set[str] = set()
    extra: set[str] = set()
    for line in source.requires:
        requirement = Requirement(line)
        marker = str(requirement.marker or "")
        (extra if "extra ==" in marker else required).add(_normal(requirement.name))
    return frozenset(
        package
        for package, distributions in metadata.packages_distributions().items()
        if any(_normal(name) in extra - required for name in distributions)
    )


def _normal(name: str) -> str:
    return name.lower().replace("_", "-").replace(".", "-")
