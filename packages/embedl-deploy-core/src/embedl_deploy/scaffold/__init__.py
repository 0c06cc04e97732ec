"""Generates a complete distribution for a new backend, which installs and passes its tests."""

from embedl_deploy.scaffold.writing import new_backend

__all__ = ["new_backend"]
