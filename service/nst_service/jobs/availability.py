"""Whether a server takes jobs now."""

from nst_service.jobs.errors import NotServingError, Unavailability


class Availability:
    """Knows why no jobs are taken. The event loop sets it; any thread may ask."""

    def __init__(self) -> None:
        self._reason: Unavailability | None = Unavailability.WARMING_UP

    @property
    def is_serving(self) -> bool:
        """Whether jobs are taken."""
        return self._reason is None

    @property
    def is_draining(self) -> bool:
        """Whether the server is leaving."""
        return self._reason is Unavailability.DRAINING

    def serve(self) -> None:
        """Take jobs from now on, unless a drain has begun."""
        if not self.is_draining:
            self._reason = None

    def drain(self) -> None:
        """Take no jobs any more."""
        self._reason = Unavailability.DRAINING

    def check(self) -> None:
        """Refuse to go on while no jobs are taken.

        Raises:
            NotServingError: warming up or draining.
        """
        if self._reason:
            raise NotServingError(self._reason)
