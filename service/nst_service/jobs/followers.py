"""The calls that follow jobs: those of this server in memory, and those of other servers in the store."""

import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable

from nst_service.jobs.background import BackgroundTasks
from nst_service.jobs.job import Job
from nst_service.jobs.job_store import AsyncJobStore
from nst_service.jobs.observer import Observer, store_failures_noted
from nst_service.store.records import DisconnectPolicy


class Followers:
    """Counts the calls of this server that follow jobs, wherever the jobs are. It belongs to the event loop.

    Servers that share a store tell each other which jobs they follow. A record of the store that cannot be written at
    once is corrected by the next heartbeat.
    """

    def __init__(
        self,
        store: AsyncJobStore,
        tasks: BackgroundTasks,
        observer: Observer,
        *,
        reattach_seconds: float,
        is_alone: bool,
    ):
        """Make the followers of a server.

        Args:
            store: records the jobs that are followed.
            tasks: the tasks that write to the store.
            observer: notified of failures of the store.
            reattach_seconds: seconds for which a job goes on without a follower, unless its last follower has left and
                nobody could find it again.
            is_alone: whether no other server shares the store.
        """
        self._store = store
        self._tasks = tasks
        self._observer = observer
        self._reattach_seconds = reattach_seconds
        self.is_alone = is_alone
        """Whether no other server shares the store."""
        self._counts: Counter[str] = Counter()
        self._is_closed = False

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._counts

    @property
    def calls(self) -> int:
        """The number of calls of this server that follow jobs. Any thread may read it."""
        return sum(list(self._counts.values()))

    @property
    def job_ids(self) -> Collection[str]:
        """The ids of the jobs that calls of this server follow."""
        return self._counts.keys()

    @contextlib.asynccontextmanager
    async def following(self, job_id: str, *, is_recorded: bool = False) -> AsyncIterator[None]:
        """Count a call as a follower of a job until the context ends.

        Args:
            job_id: the id of the job.
            is_recorded: whether the store has a record already that this server follows the job.
        """
        self._counts[job_id] += 1
        try:
            if self._counts[job_id] == 1 and not (self.is_alone or self._is_closed or is_recorded):
                with store_failures_noted(self._observer, "follow"):
                    await self._store.follow(job_id)
            yield
        finally:
            self._counts[job_id] -= 1
            if not self._counts[job_id]:
                del self._counts[job_id]
                if not (self.is_alone or self._is_closed):
                    self._tasks.spawn(self._unfollow(job_id))

    async def is_followed(self, job_id: str) -> bool:
        """Return whether a call of any server follows a job.

        Raises:
            StoreError: the store cannot tell.
        """
        return job_id in self or (not self.is_alone and await self._store.is_followed_elsewhere(job_id))

    def abandoned(self, jobs: Iterable[Job], followed_elsewhere: Collection[str] | None) -> list[Job]:
        """Return those of the jobs of this server that no call has followed for so long that they are to be cancelled.

        Args:
            jobs: the jobs.
            followed_elsewhere: the ids of the jobs that calls of other servers follow; None if the store did not tell.
        """
        now = time.monotonic()
        if followed_elsewhere is None and self.is_alone:
            followed_elsewhere = ()
        abandoned = []
        for job in jobs:
            if job.unfollowed_since is None or job.end:
                continue
            if job.id in self:
                job.unfollowed_since = None
            elif followed_elsewhere is None or job.id in followed_elsewhere:
                # Time counts only while it is known that nobody follows the job.
                job.unfollowed_since = now
            elif now - job.unfollowed_since >= self._reattach_seconds:
                abandoned.append(job)
        return abandoned

    def close(self) -> None:
        """Record nothing any more, because the records of this server vanish with it."""
        self._is_closed = True

    async def _unfollow(self, job_id: str) -> None:
        if job_id not in self and not self._is_closed:
            with store_failures_noted(self._observer, "unfollow"):
                await self._store.unfollow(job_id)


def may_be_abandoned(job: Job) -> bool:
    """Return whether a job is cancelled if nobody follows it for long enough."""
    return not job.end and job.plan.disconnect_policy is DisconnectPolicy.CANCEL
