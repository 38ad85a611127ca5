"""A real PgBouncer in front of a PostgreSQL of the tests, which gives each transaction another connection."""

import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.store.postgres import Postgres

_START_SECONDS = 60
_CONNECTIONS = 3
"""The connections to the database that all clients share."""


@contextlib.contextmanager
def run_pgbouncer(postgres: Postgres, database_url: str, folder: Path) -> Iterator[str]:
    """Run PgBouncer in front of a database, and yield the URL of the database through it."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if not program:
        pytest.skip("PgBouncer is not installed (Debian: apt-get install pgbouncer)")
    name, port = database_url.rpartition("/")[2], postgres.free_port()
    settings = folder / "pgbouncer.ini"
    settings.write_text(
        f"""
        [databases]
        {name} = host=127.0.0.1 port={postgres.port} user=postgres password={postgres.password}
        [pgbouncer]
        listen_addr = 127.0.0.1
        listen_port = {port}
        unix_socket_dir =
        auth_type = any
        pool_mode = transaction
        default_pool_size = {_CONNECTIONS}
        """
    )
    with postgres.program(program, settings) as process:
        url = f"postgresql://nst:any@127.0.0.1:{port}/{name}"
        for _ in range(_START_SECONDS * 10):
            assert process.poll() is None, "PgBouncer has ended"
            with contextlib.suppress(psycopg.OperationalError):
                psycopg.connect(url).close()
                break
            time.sleep(0.1)
        try:
            yield url
        finally:
            process.kill()
