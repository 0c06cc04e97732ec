"""A headless Chromium of the system, and pages of three networks to open in it. Run by ``./dev page``."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from embedl_deploy.page import write_page
from support import run_parts
from support.page_runs import NETWORKS, run_of

#: What the system may call it.
NAMES = ("chromium", "chromium-browser", "google-chrome")
#: What makes names that would do harm if they were taken for HTML.
EVIL = "<script>document.title = 'harm'</script><img src=x onerror=\"document.title = 'harm'\">"


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The browser."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    assert found, "there is no Chromium; on Debian: apt-get update && apt-get install chromium"
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where screenshots go: what ``PAGE_PICTURES`` names."""
    named = os.environ.get("PAGE_PICTURES")
    folder = Path(named) if named else tmp_path_factory.mktemp("pictures")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def pages(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The pages by name: three networks, and one whose names are HTML."""
    folder = tmp_path_factory.mktemp("runs")
    frontier = run_parts.frontier()
    commands = ["embedl-deploy quantize nets:Net -i 1,3,224,224 -b tensorrt --policy mixed -o net.onnx --json > q.json"]
    found = {}
    for name in NETWORKS:
        parts = run_of(name, folder)
        title = f"{name} in INT8"
        found[name] = write_page(pictures / f"{name}.html", **parts, frontier=frontier, commands=commands, title=title)
    found["evil"] = write_page(pictures / "evil.html", **_with_evil_names(), title="harmless")
    return found


def _with_evil_names() -> dict[str, object]:
    def spoiled(value: object) -> object:
        if isinstance(value, dict):
            return {key: spoiled(each) for key, each in value.items()}
        if isinstance(value, (list, tuple)):
            return [spoiled(each) for each in value]
        return f"{value}{EVIL}" if value in ("body.0.conv", "body_0_conv", "FusedConv", "be careful") else value

    return {name: spoiled(part) for name, part in run_parts.parts().items()}


@pytest.fixture
def opened(browser: Browser, pages: dict[str, Path]) -> Callable[..., object]:
    """Opens a page for a ``with`` block, at the end of which nothing must have gone wrong."""

    @contextmanager
    def opening(name: str, width: int = 1280, scheme: str = "light", scripts: bool = True) -> Iterator[Page]:
        context = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=scheme,  # type: ignore[arg-type]
            java_script_enabled=scripts,
        )
        page, wrong = context.new_page(), []
        page.on("console", lambda message: wrong.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        page.on("request", lambda request: wrong.append(f"request: {request.url}"))
        url = pages[name].as_uri()
        page.goto(url)
        assert wrong == [f"request: {url}"], "the page asked for more than itself, or failed"
        yield page
        assert wrong == [f"request: {url}"]
        context.close()

    return opening
