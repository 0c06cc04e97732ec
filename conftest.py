"""Runs the Python code blocks of README and the documentation as tests, and makes torchvision importable."""

import os
import tempfile
from collections.abc import MutableMapping
from typing import Any

import torch
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

from torchvision_import import import_torchvision

import_torchvision()
torch.set_num_threads(2)


def _enter_empty_folder(namespace: MutableMapping[str, Any]) -> None:
    namespace["_back"] = os.getcwd()
    namespace["_folder"] = tempfile.TemporaryDirectory()
    os.chdir(namespace["_folder"].name)
    torch.manual_seed(0)


def _leave_folder(namespace: MutableMapping[str, Any]) -> None:
    os.chdir(namespace["_back"])
    namespace["_folder"].cleanup()


pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser()],
    patterns=["*.md"],
    setup=_enter_empty_folder,
    teardown=_leave_folder,
).pytest()
