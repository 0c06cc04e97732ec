"""Backends: finding, loading and choosing the plugins that know a hardware target."""

from embedl_deploy.backend.backend import Backend
from embedl_deploy.backend.compilers import Build, CompileOptions, Compiler, CompilerRefusedError, Progress
from embedl_deploy.backend.hookspecs import BackendInfo, hookimpl
from embedl_deploy.backend.origins import Contribution
from embedl_deploy.backend.registry import (
    BackendStatus,
    discover_backends,
    get_backend,
    list_backends,
    reset_backends,
    set_backend,
    use_backend,
)
from embedl_deploy.backend.rules import Rule, Severity, Undecided, Violation
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
    "set_backend",
    "use_backend",
]
