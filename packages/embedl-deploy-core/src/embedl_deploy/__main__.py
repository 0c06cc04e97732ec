"""The entry point of the command line: ``python -m embedl_deploy`` and the script ``embedl-deploy``.

Importing torch takes seconds. Ctrl-C in them must not show the inside of an import, and what is imported may swallow
the exception that Python makes of it, so until the commands are there it ends the process at once: nothing has been
written yet.
"""

import os
import signal
import sys
from types import FrameType

_CODE = 130  # ExitCode.INTERRUPTED, which is not imported yet


def _end(_number: int, _frame: FrameType | None) -> None:
    os.write(2, b"error: Interrupted. No file was left half written.\n")
    os._exit(_CODE)


def main() -> int:
    """Run the command that the process was started with, and return its exit code."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # ignored, as for a job in the background
        from embedl_deploy.cli import main as run_command

        return run_command()
    signal.signal(signal.SIGINT, _end)
    from embedl_deploy.cli import main as run_command

    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        return run_command()
    except KeyboardInterrupt:  # between two handlers
        return _CODE
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # while the interpreter shuts down


if __name__ == "__main__":
    sys.exit(main())
