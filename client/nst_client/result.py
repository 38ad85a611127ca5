"""The finished picture."""

import os
from dataclasses import dataclass, field

from nst_client.events import Completed
from nst_client.files import write_atomically


@dataclass(frozen=True, kw_only=True)
class Result:
    """A finished picture. Its checksum is the one that the server announced."""

    job_id: str
    """The id of the job that made the picture."""
    media_type: str
    """The media type, such as "image/png"."""
    width: int
    """Width in pixels."""
    height: int
    """Height in pixels."""
    sha256: str
    """The SHA-256 of `data`, in lower-case hex."""
    data: bytes = field(repr=False)
    """The encoded file."""
    completed: Completed
    """The last event of the job: stop reason, losses, timings and weights."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file under a temporary name and rename it, so that nobody ever sees a part of it.

        The suffix of `path` does not change the format, which is that of `data`.

        Raises:
            OSError: the file cannot be written.
        """
        write_atomically(path, self.data)
