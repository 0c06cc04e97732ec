"""Show that a change leaves the outputs as they are, bit for bit.

    python -m zoo.unchanged write FOLDER [--sources CHECKOUT] [MODEL …]
    python -m zoo.unchanged compare BEFORE AFTER [--accept words] [--accept new-keys]

``write`` takes each model through transform, quantize, export_onnx in float32 and in float16, and check, with fixed
seeds and one thread, and writes a folder of JSON for it. With ``--sources`` the packages of another checkout are used,
so that both folders are written by one script. ``compare`` lists what differs, and exits with 1 if there is anything
that was not accepted; what was is only counted.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path

from zoo.unchanged.comparing import Kind, compare_folders

#: Differences that are listed of one file.
_MOST = 5


def main(arguments: list[str] | None = None) -> int:
    """Write or compare; returns the exit status."""
    parser = argparse.ArgumentParser(prog="zoo.unchanged", description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    write = commands.add_parser("write", help="write the outputs of this checkout, or of another")
    write.add_argument("folder", type=Path)
    write.add_argument("models", nargs="*", help="names of models; default: all")
    write.add_argument("--sources", type=Path, help="a checkout whose packages are used instead of those installed")
    compare = commands.add_parser("compare", help="list what differs between two folders")
    compare.add_argument("before", type=Path)
    compare.add_argument("after", type=Path)
    compare.add_argument(
        "--accept",
        action="append",
        default=[],
        type=Kind,
        choices=[kind for kind in Kind if kind is not Kind.VALUE],
        help="differences that do not count: other words in texts for people, or keys that there were not before",
    )
    options = parser.parse_args(arguments)
    if options.command == "write":
        return _write(options.folder, options.sources, options.models)
    return _compare(options.before, options.after, set(options.accept))


def _write(folder: Path, sources: Path | None, names: list[str]) -> int:
    if sources is not None:
        found = [str(path.resolve()) for path in sorted(sources.glob("packages/*/src"))]
        if not found:
            sys.stderr.write(f"{sources} has no packages/*/src: expected a checkout of this repository.\n")
            return 2
        sys.path[:0] = found
    # After the path is set: these import the packages.
    from zoo.unchanged.cases import CASES
    from zoo.unchanged.writing import require_sources, write_case

    unknown = set(names) - {case.name for case in CASES}
    if unknown:
        sys.stderr.write(f"No model is called {', '.join(sorted(unknown))}: {', '.join(c.name for c in CASES)}.\n")
        return 2
    if sources is not None:
        require_sources(sources)
    failed = False
    for case in CASES:
        if not names or case.name in names:
            seconds, failure = write_case(case, folder / case.name)
            failed |= bool(failure)
            sys.stdout.write(f"{case.name} ({seconds:.0f} s){failure and f': {failure}'}\n")
            sys.stdout.flush()
    return 1 if failed else 0


def _compare(before: Path, after: Path, accepted: set[Kind]) -> int:
    differences = compare_folders(before, after)
    for file, found in differences.items():
        listed = [difference for difference in found if difference.kind not in accepted]
        for difference in listed[:_MOST]:
            sys.stdout.write(f"{file}: {difference}\n")
        if len(listed) > _MOST:
            sys.stdout.write(f"{file}: {len(listed) - _MOST} more differences\n")
    kinds = Counter(difference.kind for found in differences.values() for difference in found)
    told = ", ".join(
        f"{count} of {kind.value}{' (accepted)' if kind in accepted else ''}" for kind, count in kinds.items()
    )
    sys.stdout.write(f"Differences: {told}.\n" if told else "No differences.\n")
    return 1 if set(kinds) - accepted else 0


if __name__ == "__main__":
    sys.exit(main())
