"""For all tests: blocks of README and docs are tests, torchvision imports, exports are quick, random numbers repeat."""

import gc
import os
import tempfile
from collections.abc import MutableMapping
from typing import Any

import pytest
import torch
from hypothesis import settings
from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser

from embedl_deploy.testing.translations import read_translations_once
from torchvision_import import import_torchvision

import_torchvision()
read_translations_once()
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))  # two processes with two each wait for one another
#: How many examples a law is tried on where it does not say so itself: daily, and by ``./dev slow``.
settings.register_profile("few", max_examples=20)
settings.register_profile("many", max_examples=60)
settings.load_profile("few")


def pytest_collectstart(collector: pytest.Collector) -> None:
    """A file that builds modules when it is imported builds the same in every run, whatever was imported before."""
    if isinstance(collector, pytest.Module):
        torch.manual_seed(1)


def pytest_collection_finish() -> None:
    """What is there before the first test stays: the collector need not look through it again and again."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup() -> None:
    """Before any fixture: the same weights and inputs in every run, whatever ran before."""
    torch.manual_seed(0)


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
