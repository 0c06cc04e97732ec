"""Tables of the zoo."""

from zoo.running import Record
from zoo.table import as_markdown, causes, in_float, rows, totals, unfused

GOOD = {"ok": True, "seconds": 1.0}
QUANTIZED = GOOD | {"points": 5, "weights": 3, "sqnr": 40.26}
UNTOUCHED = ["node", "linear", "no fusion has taken 'a.b'"]


def record(name, **stages):
    return Record(name, {"build": GOOD, "transform": GOOD | {"capture": "export"}, **stages}, 12.4)


WHOLE = record(
    "whole",
    agree=GOOD | {"max_rel": 2.2e-7},
    plan=GOOD,
    quantize=QUANTIZED | {"unfused": [UNTOUCHED]},
    int8=GOOD,
    fp16=GOOD,
    check=GOOD,
    engine=GOOD | {"kernels": 7},
)
HALF = record(
    "half",
    agree=GOOD | {"max_rel": 0.0},
    quantize=QUANTIZED | {"sqnr": None, "unfused": [[*UNTOUCHED[:2], "no fusion has taken 'c'"], UNTOUCHED]},
    int8={"ok": False, "seconds": 1.0, "reason": "Error: 'x.y' has 3 | 4"},
    fp16={"ok": False, "seconds": 1.0, "reason": "Other"},
)
SIMILAR = record("similar", int8={"ok": False, "seconds": 1.0, "reason": "Error: 'z' has 12 | 1"})
UNBUILT = Record("unbuilt", {"build": {"ok": False, "seconds": 0.1, "reason": "no"}}, 1.0)
ALL = [WHOLE, HALF, SIMILAR, UNBUILT]


def test_rows():
    assert rows(ALL) == [
        ("whole", "export", "2e-07", "✓", "5", "1", "40.3", "✓", "✓", "✓", "7", "12", ""),
        ("half", "export", "0e+00", "–", "5", "2", "–", "✗", "✗", "–", "–", "12", "int8: Error: 'x.y' has 3 | 4"),
        ("similar", "export", "–", "–", "–", "–", "–", "✗", "–", "–", "–", "12", "int8: Error: 'z' has 12 | 1"),
        ("unbuilt", *["–"] * 10, "1", "build: no"),
    ]


def test_failures_that_differ_in_particulars_have_one_cause():
    assert causes(ALL) == [
        ("int8: Error: 'x.y' has 3 | 4", ["half", "similar"]),
        ("fp16: Other", ["half"]),
        ("build: no", ["unbuilt"]),
    ]


def test_what_is_unfused_by_reason():
    assert unfused(ALL) == [("linear: no fusion has taken …", ["whole 1", "half 2"])]


def test_totals_are_of_what_could_be_built():
    assert totals(ALL) == [
        "3 of 4 models could be built. Of these pass: "
        "transform 3, agree 2, plan 1, quantize 2, int8 1, fp16 1, check 1, engine 1.",
        "Weighted operators and attentions without a fusion: 3 of 9 (33.3%).",
    ]


def test_a_cell_does_not_break_the_table():
    page = as_markdown("Zoo", ALL)
    assert "| int8: Error: 'x.y' has 3 \\| 4 |\n" in page
    assert "## Unfused\n\n- linear: no fusion has taken …: whole 1, half 2\n" in page


def counted(name, int8, *why):
    engine = GOOD | {"kernels": 9, "asked": 10, "int8": int8, "in_float": list(why)}
    return record(name, quantize=QUANTIZED | {"unfused": []}, int8=GOOD, check=GOOD, engine=engine, run=GOOD)


ON_RUNTIME = [
    counted("all", 10),
    counted("some", 7, ["Conv: read in float", 2], ["Gemm: bias", 1]),
    counted("few", 9, ["Conv: read in float", 1]),
]


def test_products_in_int8_by_the_engines_own_account():
    assert rows(ON_RUNTIME, "onnxruntime")[1] == (
        *("some", "export", "–", "–", "5", "0", "40.3", "✓", "✓", "9", "7 / 10", "✓", "12", ""),
    )
    assert totals(ON_RUNTIME, "onnxruntime")[2] == (
        "Products in INT8 by the engine's own account: 26 of 30 that the files ask for (86.67%); all of them in 1 of 3 "
        "models."
    )
    assert in_float(ON_RUNTIME) == [("Conv: read in float", ["some 2", "few 1"]), ("Gemm: bias", ["some 1"])]
    assert "| INT8 kernels / asked |" in as_markdown("Zoo", ON_RUNTIME, "onnxruntime")
