"""The exit codes of the commands."""

from enum import IntEnum


class ExitCode(IntEnum):
    """How a command ended; from 128 on, as shells count signals."""

    DONE = 0
    NO = 1
    USAGE = 2
    REFUSED = 3
    SYSTEM = 4
    UNEXPECTED = 70
    INTERRUPTED = 130
    BROKEN_PIPE = 141
    TERMINATED = 143


class Terminated(BaseException):
    """The process was asked to end, by a signal.

    It is not a ``SystemExit``, which code of plugins and users may raise, and which is their failure then.
    """


#: For ``--help``.
MEANINGS = {
    ExitCode.DONE: "done",
    ExitCode.NO: ("the answer is no: check found errors or a rule failed, outputs differ, or the backend is broken"),
    ExitCode.USAGE: "an argument does not fit, or names a file that is not there or is of another kind",
    ExitCode.REFUSED: "the model or the file cannot be processed: captured, quantized, exported, compiled",
    ExitCode.SYSTEM: "the operating system refuses: disk full, no permission",
    ExitCode.UNEXPECTED: "an error that should not happen; please report it",
    ExitCode.INTERRUPTED: "interrupted",
    ExitCode.BROKEN_PIPE: "the reader of the output went away",
    ExitCode.TERMINATED: "terminated",
}
