"""What each module costs and loses, and the links between modules and kernels."""

import re

from embedl_deploy.page import render_page
from embedl_deploy.page.modules import Modules
from embedl_deploy.page.parts import read_part
from embedl_deploy.page.run import Run
from support import run_parts

PARTS = run_parts.parts()
RUN = Run(**{name: read_part(name, part) for name, part in PARTS.items()})
MODULES = Modules(RUN)
LINES = {line.path: line for line in MODULES.lines}


def test_lines_are_in_the_order_of_the_graph():
    assert list(LINES) == ["body.0.conv", "body_0_add", "body.0", "body.1.conv", "body_1_add", "head"]
    assert [line.number for line in MODULES.lines] == list(range(6))


def test_a_kernel_counts_for_the_module_whose_output_it_writes():
    first, second = LINES["body.0.conv"], LINES["body.1.conv"]
    assert [layer.name for layer in first.own] == ["quantize", "first"], "a quantizer counts for what reads it"
    assert [layer.name for layer in second.own] == ["second"], "a part of a module counts for the module"
    assert (first.activation_bytes, first.weight_bytes) == (400 + 200, 50)
    assert LINES["body.0"].kernels == [2] and LINES["body.0"].own == []
    assert MODULES.of_kernel[4] == [], "a kernel may come from no module"


def test_precisions():
    planned = {path: line.planned_precision for path, line in LINES.items()}
    assert planned["body.0.conv"] == "int8" and planned["head"] == "float" and planned["body_0_add"] == ""
    assert planned["body.1.conv"] == "int8 weights"
    assert LINES["body.0.conv"].engine_precision == "int8", "of the product, not of what rounds before it"
    assert LINES["head"].precision == "float16", "what the engine does, not what was planned"


def test_modules_and_kernels_are_linked_both_ways():
    page = render_page(**PARTS)
    rows = dict(re.findall(r'<tr id="(\w+)">(.*?)</tr>', page))
    for line in MODULES.lines:
        for kernel in line.kernels:
            assert f'href="#k{kernel}"' in rows[f"m{line.number}"]
            assert f'href="#m{line.number}"' in rows[f"k{kernel}"]
    assert "m1" not in rows, "a function of which nothing is known has no line"
    assert 'href="#g1"' in rows["m0"] and 'id="g1"' in page
    assert "node_<wbr>copy" in rows["k4"]


def test_what_has_no_number():
    page = render_page(sensitivity=PARTS["sensitivity"])
    assert page.count('data-v="Infinity"') == 3, "a ratio without noise is infinite"
    assert "Infinity" not in render_page(sensitivity={**PARTS["sensitivity"], "metric": "kl"})
