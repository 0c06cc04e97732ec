"""Drawings of graphs."""

import re
from xml.etree import ElementTree

import torch
from handbook.graphs import Box, draw
from handbook.patterns import draw_graph
from torch import fx, nn

RESIDUAL = [("x", "conv"), ("conv", "bn"), ("bn", "add"), ("x", "add"), ("add", "out")]
BOXES = {name: Box(f"the {name}") for name in ("x", "conv", "bn", "add", "out")}
SPACE = "{http://www.w3.org/2000/svg}"


def rectangles(drawing):
    """Left, top, right and bottom of each box, by its label."""
    found = {}
    for group in ElementTree.fromstring(drawing).iter(f"{SPACE}g"):
        rect = group.find(f"{SPACE}rect")
        x, y, width, height = (float(rect.get(key)) for key in ("x", "y", "width", "height"))
        found[group.find(f"{SPACE}text").text] = (x, y, x + width, y + height)
    return found


def test_boxes_stand_below_what_they_need_and_do_not_touch():
    boxes = rectangles(draw(BOXES, RESIDUAL, "a residual block"))
    for first, second in RESIDUAL:
        assert boxes[f"the {first}"][3] < boxes[f"the {second}"][1]
    placed = list(boxes.values())
    for i, a in enumerate(placed):
        for b in placed[i + 1 :]:
            assert a[2] < b[0] or b[2] < a[0] or a[3] < b[1] or b[3] < a[1]


def test_a_line_that_passes_rows_crosses_no_box():
    drawing = draw(BOXES, RESIDUAL, "a residual block")
    boxes = rectangles(drawing)
    (shortcut,) = (path for path in re.findall(r'class="line" d="([^"]+)"', drawing) if path.count(" V") == 2)
    for x, bottom in re.findall(r" ([\d.]+) [\d.]+ V([\d.]+)", shortcut):
        for left, top, right, lowest in boxes.values():
            assert not (left <= float(x) <= right and top < float(bottom) <= lowest)


def test_the_same_graph_gives_the_same_text_without_blank_lines():
    drawing = draw(BOXES, RESIDUAL, "a residual block")
    assert drawing == draw(BOXES, [*RESIDUAL, RESIDUAL[0]], "a residual block")
    assert "\n\n" not in drawing
    assert "<title>a residual block</title>" in drawing


def test_labels_are_escaped():
    drawing = draw({"a": Box("<a & b>", note='"note"')}, [], "x < y")
    assert "&lt;a &amp; b&gt;" in drawing and "x &lt; y" in drawing
    assert list(rectangles(drawing)) == ["<a & b>"]


def test_a_graph_has_its_modules_functions_and_weights():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 1)
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, image):
            return (self.conv(image) * self.scale).relu()

    drawing = draw_graph(fx.symbolic_trace(Net()), {"conv"}, "net")
    assert set(rectangles(drawing)) == {"image", "Conv2d", "scale", "mul", "relu", "output"}
    assert drawing.count('<g class="marked">') == 1
