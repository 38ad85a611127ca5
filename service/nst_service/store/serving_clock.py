"""A clock that tells how long a store has been served, whatever happens to the time of day."""

import threading
import time
import uuid
from collections.abc import Callable

from sqlalchemy import Connection, insert, select, update

from nst_service.store.database import Database
from nst_service.store.schema import STORE


def store_id(database: Database) -> str:
    """Return the id of the store that a database belongs to. The first call makes it."""
    with database.write() as connection:
        database.lock_schema(connection)
        found = connection.execute(select(STORE.c.id)).scalar_one_or_none()
        if found is None:
            found = uuid.uuid4().hex
            connection.execute(insert(STORE).values(id=found, served_seconds=0.0))
        return found


class ServingClock:
    """Tells the seconds for which any server has served the store.

    The steady clock of the process measures them, and the database keeps them. The time between the end of the last
    server and the start of the next one does not count, since only the time of day could tell it. Several servers count
    the same seconds once.
    """

    def __init__(self, database: Database, clock: Callable[[], float] = time.monotonic):
        """Go on where the last server has stopped.

        Args:
            database: keeps the seconds.
            clock: returns seconds that never go back.
        """
        self._database = database
        self._clock = clock
        self._lock = threading.Lock()
        with database.read() as connection:
            self._base = self._stored(connection)
        self._started_at = clock()

    def __call__(self) -> float:
        """Return the seconds."""
        with self._lock:
            return self._base + self._clock() - self._started_at

    def save(self) -> None:
        """Store the seconds, or learn from the database that other servers have served for longer."""
        now = self()
        with self._database.write(durable=False) as connection:
            connection.execute(update(STORE).where(STORE.c.served_seconds < now).values(served_seconds=now))
            stored = self._stored(connection)
        with self._lock:
            self._base += max(0.0, stored - now)

    @staticmethod
    def _stored(connection: Connection) -> float:
        return float(connection.execute(select(STORE.c.served_seconds)).scalar_one())
