"""Ctrl-C while a job runs: the first one ends the job, the second one the program."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

from nst_client.client import Stylization
from nst_client.errors import NstError

_ANSWER_SECONDS = 5.0
"""For the server to answer that it ends the job."""


@contextlib.contextmanager
def cancelling(stylization: Stylization, note: Callable[[str], None]) -> Iterator[None]:
    """Turn the first Ctrl-C into cancelling the job, which still gives its best picture.

    The second one raises KeyboardInterrupt, as ever.
    """
    asking: threading.Thread | None = None
    leaving = False

    def ask() -> None:
        note("cancelling: waiting for the best picture so far; press Ctrl-C again to leave at once")
        try:
            stylization.cancel(timeout=_ANSWER_SECONDS)
        except (NstError, ValueError) as error:
            # ValueError: the second Ctrl-C has closed the channel already.
            if not leaving:
                note(f"the server could not be asked to cancel: {error}")
                stylization.close()

    def on_interrupt(number: int, frame: object) -> None:
        del number, frame
        nonlocal asking, leaving
        if asking:
            leaving = True
            raise KeyboardInterrupt
        # In a thread: the handler interrupts this one anywhere, even while it holds a lock of gRPC.
        asking = threading.Thread(target=ask, daemon=True)
        asking.start()

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if asking and not leaving:
            # The channel must not be closed under it.
            asking.join()
