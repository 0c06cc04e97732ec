"""The page as a whole: what is in it, and that it asks for nothing else."""

import base64
import dataclasses
import hashlib
import json
import re

import pytest

from embedl_deploy.engine import EngineReport, Timing, compare
from embedl_deploy.errors import InputError
from embedl_deploy.json_text import finite
from embedl_deploy.page import Frontier, FrontierPoint, render_page, write_page
from support import run_parts
from support.html_pages import Page

PARTS = run_parts.parts()
WHOLE = render_page(**PARTS, commands=["embedl-deploy check a.onnx"], title="A run")
PAGE = Page(WHOLE)
#: The sections that each part gives when it is alone.
ALONE = {
    "transformation": ["rewrites"],
    "quantization": ["layers"],
    "sensitivity": ["layers"],
    "engine": ["layers", "kernels"],
    "comparison": ["comparison"],
    "check": ["check"],
    "float32": ["float32"],
    "frontier": ["frontier"],
}


def test_every_link_leads_somewhere_and_no_anchor_is_there_twice():
    assert len(set(PAGE.ids)) == len(PAGE.ids)
    assert all(link.startswith("#") for link in PAGE.links)
    assert {link[1:] for link in PAGE.links} <= set(PAGE.ids)


def test_nothing_is_fetched():
    assert not re.search(r"https?:|//\w|@import|url\(", WHOLE.replace("http://www.w3.org/2000/svg", ""))
    for _, attributes in PAGE.tags:
        assert "src" not in attributes
        assert attributes.get("href", "#").startswith(("#", "data:"))


def test_the_policy_lets_only_the_pages_own_script_run():
    (policy,) = [a["content"] for tag, a in PAGE.tags if a.get("http-equiv") == "Content-Security-Policy"]
    (script,) = re.findall("<script>(.*)</script>", WHOLE, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def test_sections_are_in_order_and_linked_from_the_head():
    order = ["rewrites", "layers", "comparison", "frontier", "check", "float32", "kernels", "commands"]
    assert PAGE.sections == order
    assert [link[1:] for link in PAGE.links][: len(order)] == order
    assert "embedl-deploy check a.onnx" in PAGE.text


@pytest.mark.parametrize(("part", "sections"), ALONE.items(), ids=list(ALONE))
def test_sections_are_there_for_what_was_given(part, sections):
    page = Page(render_page(**{part: PARTS[part]}))
    assert page.sections == sections
    assert {link[1:] for link in page.links} <= set(page.ids)


def test_a_page_of_nothing_says_so():
    assert "no report was given" in Page(render_page()).text


def test_the_same_run_gives_the_same_page_also_from_json():
    again = {name: json.loads(json.dumps(finite(part))) for name, part in run_parts.parts().items()}
    assert render_page(**again, commands=["embedl-deploy check a.onnx"], title="A run") == WHOLE


def test_whatever_comes_from_a_model_is_text():
    evil = "<script>alert(1)</script>\"' onload=x \u202e&amp;\ud800"

    def spoiled(value):
        if isinstance(value, str) and value not in ("sqnr", "call_module", "call_function", "placeholder", "weight"):
            return value + evil
        if isinstance(value, dict):
            return {key: spoiled(each) for key, each in value.items()}
        return [spoiled(each) for each in value] if isinstance(value, (list, tuple)) else value

    html = render_page(**{name: spoiled(part) for name, part in PARTS.items()}, commands=[evil], title=evil)
    page = Page(html)
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert {tag for tag, _ in page.tags} == {tag for tag, _ in PAGE.tags}
    assert "<script>alert(1)</script>\"' onload=x �&amp;�" in page.text
    assert {link[1:] for link in page.links} <= set(page.ids)


def test_it_is_written_whole(tmp_path):
    path = write_page(tmp_path / "new" / "run.html", check=PARTS["check"])
    assert path.read_text(encoding="utf-8") == render_page(check=PARTS["check"])
    assert [file.name for file in path.parent.iterdir()] == ["run.html"]


def test_reports_are_taken_as_they_are():
    first, second = run_parts.engine("float16"), run_parts.engine()
    points = [FrontierPoint(**point) for point in PARTS["frontier"]["points"]]
    frontier = Frontier("activations, MB", "SQNR, dB", tuple(points))
    given = {**PARTS, "engine": second, "comparison": compare(first, second), "frontier": frontier}
    assert render_page(**given, commands=["embedl-deploy check a.onnx"], title="A run") == WHOLE
    assert Page(second.to_html()).sections == ["layers", "kernels"]
    assert Page(compare(first, second).to_html()).sections == ["comparison"]
    assert EngineReport.from_dict(PARTS["engine"]) == second


def test_times_are_shown_where_they_were_measured_and_nowhere_else():
    def timed(report, seconds):
        layers = tuple(dataclasses.replace(layer, seconds=seconds / 4) for layer in report.layers)
        return dataclasses.replace(report, layers=layers, timing=Timing((seconds,), threads=2))

    first, second = timed(run_parts.engine("float16"), 8e-3), timed(run_parts.engine(), 4e-3)
    assert not re.search(r"\d (ms|µs)\b", WHOLE)
    kernels = Page(second.to_html()).text
    assert "a run takes 4.00 ms" in kernels and kernels.count("1.00 ms") == second.kernels
    both = Page(render_page(comparison=json.loads(json.dumps(compare(first, second).to_dict())))).text
    assert "2.00 ×" in both and "8.00 ms" in both and "2.00 × as fast" in both


def test_a_report_of_another_kind_is_refused():
    with pytest.raises(InputError, match=r"engine has no 'compiler'; it looks like what sensitivity takes"):
        render_page(engine=PARTS["sensitivity"])
    with pytest.raises(InputError, match=r"check has no 'findings', 'rules_checked'\. Pass the report"):
        render_page(check={})
    with pytest.raises(InputError, match="check is 7"):
        render_page(check=7)
    with pytest.raises(InputError, match=r"cannot show sensitivity: sensitivity\.layers\[0\] has no 'alone'"):
        render_page(sensitivity={"metric": "sqnr", "quantized": 1.0, "layers": [{"path": "a"}]})
