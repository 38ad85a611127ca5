"""Ctrl-C, SIGTERM and SIGHUP while a job runs. The first ends the job or leaves it, the second ends the program."""

import contextlib
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator

from nst_launcher.signals import STOP_SIGNALS, handle_signals

from nst_client.cli.exits import CANCELLED
from nst_client.cli.streams import ReliableConsole
from nst_client.client import Stylization
from nst_client.errors import NstError

_ANSWER_SECONDS = 5.0
"""Seconds that the server gets to confirm that it ends the job."""

Interrupts = queue.SimpleQueue[bool]
"""A queue that gets True at the first signal, and False when there is nothing left to interrupt."""


@contextlib.contextmanager
def deferred_interrupts() -> Iterator[Interrupts]:
    """Put the first signal into a queue instead of raising KeyboardInterrupt, and end the program at the second one.

    Python could raise KeyboardInterrupt in the middle of gRPC, which would then wait for itself as its channel closes.
    """
    interrupts: Interrupts = queue.SimpleQueue()
    interrupted = False

    def on_interrupt(number: int, frame: object) -> None:
        del number, frame
        nonlocal interrupted
        if interrupted:
            try:
                ReliableConsole(stderr=True).show_cursor()
            finally:
                os._exit(CANCELLED)
        interrupted = True
        interrupts.put(True)

    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    handle_signals(on_interrupt)
    try:
        yield interrupts
    finally:
        for number, handler in before.items():
            if handler is not None:  # None is the handler of a library in C, which Python could not set again.
                signal.signal(number, handler)


@contextlib.contextmanager
def at_interrupt(interrupts: Interrupts, action: Callable[[], None]) -> Iterator[None]:
    """Call the action in a thread of its own at the first signal, even if that came before."""

    def watch() -> None:
        if interrupts.get():
            action()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        interrupts.put(False)
        watcher.join()


@contextlib.contextmanager
def cancelling(stylization: Stylization, interrupts: Interrupts, note: Callable[[str], None]) -> Iterator[None]:
    """Cancel the job at the first signal. It still ends with its best picture."""

    def cancel() -> None:
        note("cancelling: waiting for the best picture so far; press Ctrl-C again to leave at once")
        try:
            stylization.cancel(timeout=_ANSWER_SECONDS)
        except NstError as error:
            note(f"the server could not be asked to cancel: {error}")
            stylization.close()

    with at_interrupt(interrupts, cancel):
        yield


@contextlib.contextmanager
def leaving(stylization: Stylization, interrupts: Interrupts, note: Callable[[str], None]) -> Iterator[None]:
    """End the command at the first signal, but let the job continue."""
    left = threading.Event()

    def leave() -> None:
        note("leaving: the job continues; nst-client cancel ends it")
        left.set()
        stylization.close()

    try:
        with at_interrupt(interrupts, leave):
            yield
    except NstError:
        # A stylization that was closed ends with an error.
        if not left.is_set():
            raise
    if left.is_set():
        raise SystemExit(CANCELLED)
