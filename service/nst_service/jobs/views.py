"""Descriptions of jobs for calls that ask about them, whether a job runs here, elsewhere, or has ended."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from nst_service.engine.sizes import Size
from nst_service.jobs.device_pool import DevicePool
from nst_service.jobs.errors import UnknownJobError
from nst_service.jobs.events import Progress, SerializedEvent
from nst_service.jobs.job_store import AsyncJobStore
from nst_service.jobs.job_table import JobTable
from nst_service.jobs.quotas import ANYONE, Owner
from nst_service.lifecycle import JobState
from nst_service.store.records import StoredJob


@dataclass(frozen=True, kw_only=True)
class Durability:
    """The settings for jobs that outlive calls and servers."""

    checkpoint_seconds: float
    """Shortest time in seconds between two checkpoints of a job."""
    reattach_seconds: float
    """Seconds for which a job that can be reattached goes on without a follower."""
    retention_seconds: float
    """Seconds for which a job is stored after its end."""
    is_alone: bool
    """Whether no other server shares the store."""


@dataclass(frozen=True, slots=True)
class JobView:
    """A job as it is shown to its owner."""

    stored: StoredJob
    size: Size
    """Size of the result in pixels."""
    progress: Progress | SerializedEvent | None
    """The last progress of the job; None if no server has told any."""


class JobViews:
    """Finds jobs in the store, and adds what only this server knows about the jobs that it runs."""

    def __init__(self, store: AsyncJobStore, table: JobTable, pool: DevicePool):
        self._store = store
        self._table = table
        self._pool = pool

    @property
    def devices(self) -> list[str]:
        """The names of the devices."""
        return self._pool.names

    @property
    def queued_jobs(self) -> int:
        """The number of jobs that wait on this server."""
        return len(self._table.waiting)

    @property
    def running_jobs(self) -> int:
        """The number of jobs that run on this server."""
        return len(self._pool.running)

    async def stored(self, job_id: str, owner: Owner) -> StoredJob:
        """Return a stored job.

        Raises:
            UnknownJobError: no job of this owner has this id.
        """
        stored = await self._store.job(job_id)
        # Other owners get the same answer as for an unknown id, so that they cannot learn which ids exist.
        if stored is None or stored.owner != owner.name:
            raise UnknownJobError(job_id)
        return stored

    async def job_id(self, request_id: str, owner: Owner = ANYONE) -> str:
        """Return the id of the job of a request, even if the job is not stored yet.

        Raises:
            UnknownJobError: no request of this owner has this id.
        """
        job = await self._store.job_of_request(owner.name, request_id) or self._table.of_request(owner.name, request_id)
        if job is None:
            raise UnknownJobError(request_id)
        return job.id

    async def view(self, job_id: str, owner: Owner = ANYONE) -> JobView:
        """Return the view of a job.

        Raises:
            UnknownJobError: no job of this owner has this id.
        """
        (view,) = await self._views([await self.stored(job_id, owner)])
        return view

    async def page(
        self, owner: Owner, *, states: Collection[JobState], before: int | None, limit: int
    ) -> list[JobView]:
        """Return the views of a page of an owner's jobs, newest first (see `Store.jobs` for the arguments)."""
        return await self._views(await self._store.jobs(owner.name, states, before, limit))

    async def _views(self, jobs: Sequence[StoredJob]) -> list[JobView]:
        sizes = await self._store.sizes(jobs)
        elsewhere = [job.id for job in jobs if job.state is JobState.RUNNING and job.id not in self._table]
        published = await self._store.progress(elsewhere) if elsewhere else {}
        return [
            JobView(stored, sizes[stored.id], self._progress(stored.id) or published.get(stored.id)) for stored in jobs
        ]

    def _progress(self, job_id: str) -> Progress | None:
        job = self._table.get(job_id)
        return job.log.latest(Progress) if job else None
