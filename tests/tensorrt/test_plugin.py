"""The backend as core finds it."""

from collections.abc import Iterator

import pytest
from torch import nn

from embedl_deploy import transform
from embedl_deploy.backend import get_backend, list_backends, reset_backends
from embedl_deploy.tensorrt import TENSORRT_CONVERSION_PATTERNS, TENSORRT_FUSION_PATTERNS


@pytest.fixture(autouse=True)
def _fresh_backends() -> Iterator[None]:
    reset_backends()
    yield
    reset_backends()


def test_is_listed_and_usable() -> None:
    status = list_backends()["tensorrt"]
    assert status.usable, status.error
    assert status.origin.startswith("embedl-deploy-tensorrt ")


def test_describes_itself() -> None:
    backend = get_backend("tensorrt")
    assert backend.name == "tensorrt"
    assert backend.info.title == "NVIDIA TensorRT" and "NVIDIA" in backend.info.description


def test_gives_the_lists_of_patterns_in_their_order() -> None:
    assert list(get_backend("tensorrt").patterns) == [*TENSORRT_CONVERSION_PATTERNS, *TENSORRT_FUSION_PATTERNS]


def test_is_found_by_name_and_named_in_the_report() -> None:
    result = transform(nn.Sequential(nn.Linear(4, 3), nn.ReLU()).eval(), backend="tensorrt")
    assert result.report["backend"] == "tensorrt" and result.report["applied_count"] == 1
    assert "for NVIDIA TensorRT" in str(result.report)
