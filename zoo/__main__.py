"""``python -m zoo``: all torchvision classifiers, or with ``--family`` one family of models through every stage."""

import argparse
import signal
import sys
from fnmatch import fnmatch
from pathlib import Path

from rich.console import Console

from zoo.backends import BACKENDS, DEFAULT
from zoo.families import FAMILIES, members_of
from zoo.running import GIGABYTES, TIMEOUT, read_records, run_models
from zoo.table import as_markdown, as_table, headed, totals


def main(arguments: list[str] | None = None) -> int:
    """Run models; returns the exit status: 1 if a stage of a model failed."""
    parser = argparse.ArgumentParser(prog="zoo", description=__doc__)
    parser.add_argument("models", nargs="*", help="names, or globs such as 'Dino*'; default: all")
    parser.add_argument("--double", action="store_true", help="classifiers in double precision, without --family")
    parser.add_argument("--family", help=f"{', '.join(FAMILIES)}, or a module with MEMBERS")
    parser.add_argument(
        "--results", type=Path, default=Path("zoo-results"), help="folder; what is in it is not repeated"
    )
    parser.add_argument("--again", action="store_true", help="run models that have a result again")
    parser.add_argument("--failed", action="store_true", help="run models that have failed again")
    parser.add_argument("--timeout", type=float, default=TIMEOUT, help="seconds for a model")
    parser.add_argument("--memory", type=float, default=GIGABYTES, help="gigabytes for a model")
    parser.add_argument("--backend", choices=BACKENDS, default=DEFAULT, help="with --family; default: %(default)s")
    parser.add_argument("--policy", help="where to quantize, with --family; default: the backend's own")
    parser.add_argument("--stages", help="those to take each model through; default: all that the backend has")
    parser.add_argument("--device", default="cpu", help="where models and inputs are; default: %(default)s")
    parser.add_argument("--markdown", type=Path, help="write the table there, too")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a model's process is ended with this one
    if options.family is None:
        from zoo.classifiers import compare

        return compare(options.models, double=options.double)
    return _run(options)


def _run(options: argparse.Namespace) -> int:
    patterns = options.models or ["*"]
    names = [name for name in members_of(options.family) if any(fnmatch(name, pattern) for pattern in patterns)]
    if not names:
        sys.stderr.write(f"No model of the family {options.family!r} is called {' or '.join(patterns)}.\n")
        return 2
    needed = BACKENDS[options.backend].needed
    stages = list(needed) if options.stages is None else options.stages.split(",")
    if not set(stages) <= set(needed) or any(needed[stage] not in ("", *stages) for stage in stages):
        sys.stderr.write(f"--stages {options.stages}: expected some of {','.join(needed)}, each with what it needs.\n")
        return 2
    of = [options.family, *([] if options.backend == DEFAULT else [options.backend]), *filter(None, [options.policy])]
    path = options.results / f"{'-'.join(of)}.jsonl"
    known = read_records(path)
    wanted = [
        name
        for name in names
        if options.again or name not in known or (options.failed and known[name].failure is not None)
    ]
    console = Console(width=None if sys.stdout.isatty() else 220)
    for record in run_models(
        options.family,
        wanted,
        path,
        timeout=options.timeout,
        gigabytes=options.memory,
        stages=stages,
        device=options.device,
        backend=options.backend,
        policy=options.policy,
    ):
        stage, reason = record.failure or ("all stages", "passed")
        console.print(f"{record.model}: {stage}: {reason} ({record.seconds:.0f} s)", markup=False, highlight=False)
    known = read_records(path)
    records = [known[name] for name in names]
    console.print(as_table(records, options.backend))
    for heading, groups in headed(records):
        for reason, models in groups:
            console.print(f"{heading}: {reason}: {', '.join(models)}", markup=False, highlight=False)
    console.print(*totals(records, options.backend), sep="\n", markup=False, highlight=False)
    if options.markdown is not None:
        options.markdown.write_text(
            as_markdown(f"The family {options.family}", records, options.backend), encoding="utf-8"
        )
    return 1 if any(record.failure for record in records) else 0


if __name__ == "__main__":
    sys.exit(main())
