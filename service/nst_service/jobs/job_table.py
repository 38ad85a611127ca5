"""The jobs that a server knows. Belongs to the event loop."""

import contextlib
from collections.abc import Collection, Iterator

from nst_service.jobs.job import Job


class JobTable:
    """Finds the jobs that are on this server, by id, by request and by owner, and keeps the queue."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._admitting: list[str] = []
        """Names of the owners of the requests that are being decoded."""
        self.waiting: list[Job] = []
        """The queue: jobs that have no place on a device, in the order of their arrival."""

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._jobs

    def add(self, job: Job) -> None:
        """Take a job in."""
        self._jobs[job.id] = job

    def remove(self, job: Job) -> None:
        """Forget a job."""
        del self._jobs[job.id]

    def get(self, job_id: str) -> Job | None:
        """Return a job; None for an unknown id."""
        return self._jobs.get(job_id)

    def owned(self, job_id: str, owner: str) -> Job | None:
        """Return a job of an owner; None where the owner has no job with this id."""
        job = self._jobs.get(job_id)
        return job if job and job.owner == owner else None

    def of_request(self, owner: str, request_id: str) -> Job | None:
        """Return the job of an owner's request; None where there is none. Of several, the first one will be stored."""
        same = (job for job in self._jobs.values() if (job.owner, job.plan.request_id) == (owner, request_id))
        return next(same, None)

    def unfollowed(self, latest: float) -> list[Job]:
        """Return the jobs that have had no follower since a time on the clock of `time.monotonic`, or longer."""
        return [
            job
            for job in self._jobs.values()
            if not job.followers and job.unfollowed_since is not None and job.unfollowed_since <= latest
        ]

    @contextlib.contextmanager
    def admitting(self, owner: str) -> Iterator[None]:
        """Count a request among what waits, for as long as it is being decoded."""
        self._admitting.append(owner)
        try:
            yield
        finally:
            self._admitting.remove(owner)

    @property
    def queue_length(self) -> int:
        """The number of jobs that wait, and of requests that are about to."""
        return len(self.waiting) + len(self._admitting)

    def held(self, owner: str, running: Collection[Job]) -> int:
        """Return how many jobs an owner has that wait or run, or are about to."""
        return self._admitting.count(owner) + sum(job.owner == owner for job in (*self.waiting, *running))
