"""What a search has seen, drawn."""

from embedl_deploy.page import render_page
from embedl_deploy.page.parts import parts_of, read_part
from embedl_deploy.page.sections.frontier import best_of, draw_frontier
from support import run_parts

FOUND = read_part("frontier", run_parts.frontier())


def test_what_nothing_beats():
    assert [(point.objective, point.accuracy) for point in best_of(FOUND.points)] == [(8, 18), (9, 25), (12, 26)]


def test_every_point_tells_its_decision():
    drawn = draw_frontier(FOUND)
    assert drawn.count("<circle") == 4 and drawn.count('class="chosen"') == 1 and drawn.count('class="best"') == 2
    assert "<title>decision 2\n9, 25 (chosen)</title>" in drawn
    assert "activations, MB" in drawn and "SQNR, dB" in drawn


def test_points_at_one_place_are_drawn():
    point = {"objective": 3.0, "accuracy": 0.0, "decision": "the only one"}
    assert "the only one" in render_page(frontier={"objective": "MB", "accuracy": "dB", "points": [point]})
    assert (
        "frontier" not in render_page(frontier={"objective": "MB", "accuracy": "dB", "points": []}).split("</style>")[1]
    )


def test_of_a_search_what_has_no_finite_figure_is_listed_and_one_decision_is_chosen():
    def trial(name, objective, accuracy):
        return {"name": name, "objective": objective, "accuracy": accuracy, "outcome": "said"}

    best = trial("stem quantized", 3.0, 40.0)
    trials = [trial("float16", 9.0, None), best, trial("stem quantized", 5.0, 41.0), trial("all", None, 12.0)]
    search = {"objective": "kernels", "measure": "sqnr", "trials": trials, "best": best}
    found = parts_of(search)["frontier"]
    assert [point["chosen"] for point in found["points"]] == [True, False]
    assert found["not_drawn"] == ["float16: said", "all: said"]
    page = render_page(**parts_of(search))
    assert "Not drawn: no finite figure (2)" in page and "<li>float16: said</li>" in page
    only = render_page(**parts_of({**search, "trials": trials[:1], "best": trials[0]}))
    assert "<li>float16: said (chosen)</li>" in only and "<circle" not in only.split("</style>")[1]
