"""The finished picture."""

import os
from dataclasses import dataclass, field

from nst_client.events import Completed
from nst_client.files import write_atomically


@dataclass(frozen=True, kw_only=True)
class Result:
    """A finished picture, checked against the checksum that the server announced."""

    job_id: str
    """The job that made it."""
    media_type: str
    """"image/png", "image/jpeg", "image/webp" or "image/tiff"."""
    width: int
    """Width in pixels."""
    height: int
    """Height in pixels."""
    sha256: str
    """SHA-256 of `data`, lower-case hex."""
    data: bytes = field(repr=False)
    """The encoded file."""
    completed: Completed
    """How the job ended: stop reason, losses, timings, weights."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file so that nobody ever sees a part of it: under a temporary name, then renamed.

        The format is that of `data`, whatever the suffix of `path`.

        Raises:
            OSError: the file cannot be written.
        """
        write_atomically(path, self.data)
