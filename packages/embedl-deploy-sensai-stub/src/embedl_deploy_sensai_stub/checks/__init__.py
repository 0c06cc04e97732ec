"""What the engine asks of an ONNX file: rules for :func:`embedl_deploy.check`."""

from embedl_deploy.backend import Rule
from embedl_deploy_sensai_stub.checks.numbers import EverythingQuantized, OneScale, PowersOfTwo, SymmetricInt8
from embedl_deploy_sensai_stub.checks.operators import EngineOperators

SENSAI_RULES: tuple[Rule, ...] = (PowersOfTwo(), OneScale(), SymmetricInt8(), EngineOperators(), EverythingQuantized())

__all__ = ["SENSAI_RULES", "EngineOperators", "EverythingQuantized", "OneScale", "PowersOfTwo", "SymmetricInt8"]
