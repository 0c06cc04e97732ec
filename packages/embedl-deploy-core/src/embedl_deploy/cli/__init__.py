"""The command line, ``embedl-deploy``: every command is a call of the public API with its result printed."""

from embedl_deploy.cli.program import main

__all__ = ["main"]
