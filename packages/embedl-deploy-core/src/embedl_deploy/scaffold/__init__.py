"""New backends: a complete distribution to start from, which installs, passes its tests and quantizes a network."""

from embedl_deploy.scaffold.writing import new_backend

__all__ = ["new_backend"]
