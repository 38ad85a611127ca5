"""The signals that ask a program to end."""

import os
import signal
from collections.abc import Callable
from types import FrameType

STOP_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""The signals that ask a program to end. Not every system has all of them."""


def leave_at_signal(code: int) -> None:
    """Let each signal that asks the program to end do so at once, with one line and this exit code.

    Python would raise an exception in the middle of an import, which some libraries answer by aborting the process.
    Nothing has begun by then that would have to be ended in order.
    """

    def leave(number: int, frame: FrameType | None) -> None:
        del number, frame
        try:
            os.write(2, b"interrupted\n")
        finally:
            os._exit(code)

    handle_signals(leave)


def handle_signals(handler: Callable[[int, FrameType | None], object]) -> None:
    """Set the handler of the signals that ask the program to end.

    Signals that the parent process has decided to ignore stay ignored: `nohup` does so with SIGHUP, and a shell does so
    with SIGINT for a background job.
    """
    for number in STOP_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)
