"""The command line: ``python -m fuzz --networks 1000 --seed 0``. Exits 1 if a law is broken."""

import argparse
import runpy
import signal
import sys
from contextlib import suppress
from pathlib import Path

from fuzz.failure_files import minimised, write_failure
from fuzz.laws import LAWS
from fuzz.outcome import BROKEN
from fuzz.reporting import Tally
from fuzz.running import TIMEOUT, run_networks

#: Failures of one kind that are written as files; more of them say nothing new.
FILES_OF_A_KIND = 3


def main(arguments: list[str] | None = None) -> int:
    """Run networks; returns the exit status."""
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--networks", type=int, default=1000, help="how many networks")
    parser.add_argument("--seed", type=int, default=0, help="the first network's seed; the others follow it")
    parser.add_argument("--only-law", action="append", default=[], choices=LAWS, help="this law alone, on all networks")
    parser.add_argument("--jobs", type=int, default=1, help="worker processes")
    parser.add_argument("--timeout", type=float, default=TIMEOUT, help="seconds for a network")
    parser.add_argument("--write", type=Path, default=Path("fuzz-failures"), help="folder for failures, a file each")
    parser.add_argument("--replay", type=Path, help="run the file of a failure again, and nothing else")
    options = parser.parse_args(arguments)
    if options.replay is not None:
        runpy.run_path(str(options.replay), run_name="__main__")
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    tally = Tally()
    with suppress(KeyboardInterrupt):  # the table then has what there is
        _run(options, tally)
    tally.print()
    return 1 if tally.broken else 0


def _run(options: argparse.Namespace, tally: Tally) -> None:
    seeds = range(options.seed, options.seed + options.networks)
    for seed, outcomes in run_networks(seeds, options.only_law, jobs=options.jobs, timeout=options.timeout):
        tally.add(seed, outcomes)
        for outcome in outcomes:
            if outcome.status == BROKEN and len(tally.kinds[BROKEN, outcome.law, outcome.kind]) <= FILES_OF_A_KIND:
                options.write.mkdir(parents=True, exist_ok=True)
                print(f"\nbroken: {write_failure(options.write, seed, outcome, minimised(seed, outcome))}", flush=True)
        tally.progress(len(seeds))


if __name__ == "__main__":
    sys.exit(main())
