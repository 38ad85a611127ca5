"""Whether the server accepts jobs now."""

from nst_service.jobs.errors import NotServingError, Unavailability


class Availability:
    """Tells whether the server accepts jobs. Only the event loop changes it; any thread may ask."""

    def __init__(self) -> None:
        self._reason: Unavailability | None = Unavailability.WARMING_UP

    @property
    def is_serving(self) -> bool:
        """Whether the server accepts jobs."""
        return self._reason is None

    @property
    def is_draining(self) -> bool:
        """Whether a drain has begun. It never ends."""
        return self._reason is Unavailability.DRAINING

    def serve(self) -> None:
        """Accept jobs from now on, unless a drain has begun."""
        if not self.is_draining:
            self._reason = None

    def drain(self) -> None:
        """Accept no more jobs."""
        self._reason = Unavailability.DRAINING

    def check(self) -> None:
        """Return if the server accepts jobs.

        Raises:
            NotServingError: the server is warming up or draining.
        """
        # Read once, because another thread may change it.
        if reason := self._reason:
            raise NotServingError(reason)
