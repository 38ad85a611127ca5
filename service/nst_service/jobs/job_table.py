"""The jobs that a server knows, and its queue. They belong to the event loop."""

import contextlib
from collections.abc import Collection, Iterator

from nst_service.jobs.job import Job


class JobTable:
    """Finds the jobs of this server by id, by request and by owner, and holds the queue."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._admitting: list[str] = []
        """The names of the owners of the requests that are being admitted, one for each request."""
        self.waiting: list[Job] = []
        """The queue: the jobs without a place on a device, in the order of their arrival."""

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._jobs

    def __iter__(self) -> Iterator[Job]:
        return iter(list(self._jobs.values()))

    def add(self, job: Job) -> None:
        """Add a job."""
        self._jobs[job.id] = job

    def remove(self, job: Job) -> None:
        """Remove a job that is in the table."""
        del self._jobs[job.id]

    def get(self, job_id: str) -> Job | None:
        """Return a job; None for an unknown id."""
        return self._jobs.get(job_id)

    def owned(self, job_id: str, owner: str) -> Job | None:
        """Return a job of an owner; None if the owner has no job with this id."""
        job = self._jobs.get(job_id)
        return job if job and job.owner == owner else None

    def of_request(self, owner: str, request_id: str) -> Job | None:
        """Return the job of an owner's request; None if there is none.

        While several calls with the same request are being stored, the first of their jobs is the one that remains.
        """
        same = (job for job in self._jobs.values() if (job.owner, job.plan.request_id) == (owner, request_id))
        return next(same, None)

    @contextlib.contextmanager
    def admitting(self, owner: str) -> Iterator[None]:
        """Count a request as a waiting job of its owner until the context ends."""
        self._admitting.append(owner)
        try:
            yield
        finally:
            self._admitting.remove(owner)

    @property
    def queue_length(self) -> int:
        """The number of waiting jobs, including the requests that are being admitted."""
        return len(self.waiting) + len(self._admitting)

    def held(self, owner: str, running: Collection[Job]) -> int:
        """Return the number of jobs of an owner that wait or run, including the requests that are being admitted."""
        return self._admitting.count(owner) + sum(job.owner == owner for job in (*self.waiting, *running))
