"""The command line speaks of its own options."""

import re
from pathlib import Path

import pytest

from embedl_deploy.cli.wording import WORDS, for_the_shell

NET = ("nets:Net", "-b", "tensorrt")
X = ("-i", "1,3,16,16")


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("Call report.why_not(name) to see why.", "Use --why-not NAME to see why."),
        ("report.why_not('a.b') says why", "--why-not a.b says why"),
        ("1 more; plan.matches lists them", "1 more; plan --json lists them"),
        (
            "leave it out, plan.matches[node]['ConvPattern'].apply = False.",
            'leave it out, "apply": false at each ConvPattern in what `plan -o FILE` writes, and --plan FILE.',
        ),
        ("- give example inputs, transform(model, args=(...)), so", "- give example inputs, --input or --inputs, so"),
        ("needs example inputs: pass args=(x,) to the call.", "needs example inputs: pass --input or --inputs."),
        ("unknown: pass example inputs, args=", "unknown: pass --input or --inputs"),
        ("omit trace='symbolic', so", "omit --trace symbolic, so"),
        ('with trace="export".', "with --trace export."),
        (
            "or for example shapes={'x': ((1, 3, 1), (8, 3, 8), (32, 3, 32))}.",
            "or for example --shape x=1,3,1/8,3,8/32,3,32.",
        ),
    ],
)
def test_options_in_the_place_of_arguments(said, shown):
    assert for_the_shell(said) == shown


def test_what_is_reworded_is_said():
    root = Path(__file__).parents[3] / "packages"  # a shape that is not known is a backend's to tell
    texts = [path.read_text() for path in root.rglob("*.py") if path.name != "wording.py"]
    code = re.sub(r"\{(\w+(\.\w+|\[0\])?)!r\}", "'x'", "\n".join(texts))
    assert [said for said, _ in WORDS if not re.search(said, code)] == []


def test_a_plan_without_inputs_asks_for_them_by_their_options(command):
    done = command("plan", *NET, "--why-not", "0", "--why-not", "7")
    assert done.code == 0 and "args=" not in done.out
    assert "pass --input or --inputs" in done.out
    assert "\n0: ConvBNReLUPattern applies (_0 → _1 → _2)\n" in done.out
    assert done.out.splitlines()[-1].startswith("7: ")


def test_why_not_of_what_was_left(command):
    done = command("transform", *NET, *X, "--why-not", "nope")
    assert done.code == 3 and "The model has no node or module 'nope'." in done.err
    done = command("transform", *NET, *X)
    assert re.search(r"Unfused: .*Flatten ×1 \(\w+\)\. Use --why-not NAME to see why\.", done.out)


def test_a_container_is_skipped(command):
    done = command(
        "quantize", "nets:Wrapped", "-b", "tensorrt", *X, "--data", "data.npy", "--skip", "body", "-o", "o.onnx"
    )
    assert done.code == 0 and "body.0 weight (FusedConvBNReLU): skip: 'body'" in done.out
