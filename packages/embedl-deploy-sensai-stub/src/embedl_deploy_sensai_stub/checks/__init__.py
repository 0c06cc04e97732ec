"""The check rules of the engine, for :func:`embedl_deploy.check`."""

import embedl_deploy_sensai_stub.checks as package
from embedl_deploy.backend import Rule, rules_in
from embedl_deploy_sensai_stub.checks.numbers import EverythingQuantized, OneScale, PowersOfTwo, SymmetricInt8
from embedl_deploy_sensai_stub.checks.operators import EngineOperators

#: What the files of this folder define.
SENSAI_RULES: tuple[Rule, ...] = rules_in(package)

__all__ = ["SENSAI_RULES", "EngineOperators", "EverythingQuantized", "OneScale", "PowersOfTwo", "SymmetricInt8"]
