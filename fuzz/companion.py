"""A second process with other hashes, which reports on the same networks."""

import atexit
import os
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

_END = "\0"


@lru_cache(maxsize=1)
def _process() -> "subprocess.Popen[str]":
    seed = "4321" if os.environ.get("PYTHONHASHSEED") == "1234" else "1234"
    root = Path(__file__).parents[1]
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "fuzz.companion"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        encoding="utf-8",
        cwd=root,
        env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONIOENCODING": "utf-8", "OMP_NUM_THREADS": "1"},
    )
    atexit.register(process.kill)
    return process


def report_elsewhere(seed: int) -> str:
    """The report on a network, by a process with other hashes."""
    process = _process()
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{seed}\n")
    process.stdin.flush()
    lines = []
    while not (line := process.stdout.readline()).startswith(_END):
        if not line:
            raise RuntimeError("the companion process ended")
        lines.append(line)
    return "".join(lines).removesuffix("\n")


def main() -> None:
    """Read seeds, write reports."""
    from embedl_deploy.errors import EmbedlDeployError
    from fuzz.laws.hash_seeds import report_text
    from fuzz.loading import unload
    from fuzz.network import write_network
    from fuzz.trying import subject_of

    for line in sys.stdin:
        network = write_network(int(line))
        try:
            text = report_text(subject_of(network))
        except EmbedlDeployError as error:
            text = f"{type(error).__name__}: {error}"
        finally:
            unload(network)
        print(f"{text}\n{_END}", flush=True)


if __name__ == "__main__":
    main()
