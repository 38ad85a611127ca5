"""The live events of jobs for calls on other servers: the latest ones, which the store keeps until the job ends."""

from nst_service.jobs.events import Preparing, Progress
from nst_service.jobs.job_store import AsyncJobStore, Live
from nst_service.jobs.job_table import JobTable

_FOR_VIEWS = (Preparing, Progress)
"""The events that are published even if no call on another server follows the job, because `GetJob` reports them."""


class LivePublisher:
    """Stores the latest of those events of the jobs of this server that later events make outdated.

    Calls on other servers read them from there. However many steps the jobs take and however many calls follow them,
    each round is one transaction, and none if nothing is new.
    """

    def __init__(self, store: AsyncJobStore, table: JobTable):
        self._store = store
        self._table = table
        self._published: dict[tuple[str, type], int] = {}
        """The sequences of the events that were published last, by the job and the kind of the event."""

    async def publish(self) -> None:
        """Publish what is new since the last call.

        Raises:
            StoreError: the store cannot take the events.
        """
        jobs = [job for job in self._table if not job.end]
        # The events are taken before the store is asked for anything. So the store is told those of their predecessors
        # that it keeps before it is told them, and no watcher sees a gap.
        latest = [(job, job.log.latest_events()) for job in jobs]
        if not jobs:
            self._published.clear()
            return
        followed = await self._store.followed_elsewhere()
        events = [
            Live(job, logged)
            for job, candidates in latest
            for logged in candidates
            if job.id in followed or isinstance(logged.event, _FOR_VIEWS)
        ]
        new = [live for live in events if live.logged.sequence > self._published.get(_key(live), 0)]
        if new:
            await self._store.publish_live(new)
        self._published = {_key(live): live.logged.sequence for live in events}


def _key(live: Live) -> tuple[str, type]:
    return live.job.id, type(live.logged.event)
