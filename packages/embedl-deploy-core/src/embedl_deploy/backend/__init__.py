"""Backends: finding, loading and choosing the plugins that know a hardware target."""

from embedl_deploy.backend.contract.compilers import Build, CompileOptions, Compiler, CompilerRefusedError, Progress
from embedl_deploy.backend.contract.hookspecs import BackendInfo, hookimpl
from embedl_deploy.backend.contract.rule_collection import rules_in
from embedl_deploy.backend.contract.rules import Rule, Severity, Undecided, Violation
from embedl_deploy.backend.contract.running import LoadedEngine
from embedl_deploy.backend.loader.backend import Backend
from embedl_deploy.backend.loader.choice import get_backend, reset_backends, set_backend, use_backend
from embedl_deploy.backend.loader.contributions import Contribution
from embedl_deploy.backend.loader.names import discover_backends
from embedl_deploy.backend.loader.status import BackendStatus, list_backends
from embedl_deploy.files import atomic_write
from embedl_deploy.numerics import PointKind, QuantPoint, QuantPolicy

__all__ = [
    "Backend",
    "BackendInfo",
    "BackendStatus",
    "Build",
    "CompileOptions",
    "Compiler",
    "CompilerRefusedError",
    "Contribution",
    "LoadedEngine",
    "PointKind",
    "Progress",
    "QuantPoint",
    "QuantPolicy",
    "Rule",
    "Severity",
    "Undecided",
    "Violation",
    "atomic_write",
    "discover_backends",
    "get_backend",
    "hookimpl",
    "list_backends",
    "reset_backends",
    "rules_in",
    "set_backend",
    "use_backend",
]
