"""Ctrl-C while a job runs. The first one ends the job or leaves it, the second one ends the program."""

import contextlib
import os
import queue
import signal
import threading
from collections.abc import Callable, Iterator

from rich.console import Console

from nst_client.cli.exits import CANCELLED
from nst_client.client import Stylization
from nst_client.errors import NstError

_ANSWER_SECONDS = 5.0
"""Seconds that the server gets to confirm that it ends the job."""

Interrupts = queue.SimpleQueue[bool]
"""A queue that gets True at the first Ctrl-C, and False when there is nothing left to interrupt."""


@contextlib.contextmanager
def deferred_interrupts() -> Iterator[Interrupts]:
    """Put the first Ctrl-C into a queue instead of raising it, and end the program at the second one.

    Python could raise KeyboardInterrupt in the middle of gRPC, which would then wait for itself as its channel closes.
    """
    interrupts: Interrupts = queue.SimpleQueue()
    interrupted = False

    def on_interrupt(number: int, frame: object) -> None:
        del number, frame
        nonlocal interrupted
        if interrupted:
            Console(stderr=True).show_cursor()
            os._exit(CANCELLED)
        interrupted = True
        interrupts.put(True)

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield interrupts
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def at_interrupt(interrupts: Interrupts, action: Callable[[], None]) -> Iterator[None]:
    """Call the action in a thread of its own at the first Ctrl-C, even if that came before."""

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
    """Cancel the job at the first Ctrl-C. It still ends with its best picture."""

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
    """End the command at the first Ctrl-C, but let the job continue."""
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
