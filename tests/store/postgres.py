"""A real PostgreSQL on the loopback interface, which the tests start and remove."""

import contextlib
import itertools
import os
import pwd
import random
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import pytest

_UNPRIVILEGED = ("postgres", "nobody")
"""The users to run PostgreSQL as, since it does not run as root."""
_PORTS = range(20_000, 30_000)
"""The ports to choose from, below those that Linux gives to connections, 32768 and above."""


@dataclass
class Postgres:
    port: int
    password: str
    programs: Path
    data: Path
    _user: tuple[str, ...]
    """The command that runs another one as a user who may run PostgreSQL."""
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def url(self, database: str) -> str:
        return f"postgresql://postgres:{self.password}@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """Make an empty database and return its URL."""
        name = f"nst_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def execute(self, statement: str) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement)  # type: ignore[call-overload]

    def program(self, *command: str | Path) -> "subprocess.Popen[bytes]":
        """Start another program that does not run as root either."""
        return subprocess.Popen([*self._user, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    @staticmethod
    def free_port() -> int:
        """Return a port on which nothing listens."""
        return _free_port()

    def start(self) -> None:
        settings = f"-c listen_addresses=127.0.0.1 -c port={self.port} -c unix_socket_directories='' -c fsync=off"
        self._control("start", "-o", settings)

    def stop(self) -> None:
        """Stop it as a crash would."""
        self._control("stop", "-m", "immediate")

    def _control(self, action: str, *more: str) -> None:
        subprocess.run(
            [*self._user, self.programs / "pg_ctl", action, "-w", "-D", self.data, "-l", self.data / "log", *more],
            check=True,
            stdout=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL,
            cwd=self.data,
        )


def _programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if path := shutil.which("initdb") or (found and found[-1]):
        return Path(path).parent
    pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")


def _user() -> pwd.struct_passwd | None:
    """Return the user to run PostgreSQL as; None for the user of the tests."""
    if os.geteuid() != 0:
        return None
    for name in _UNPRIVILEGED:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    pytest.skip("PostgreSQL does not run as root, and no other user is known")


def _as_user(user: pwd.struct_passwd | None) -> tuple[str, ...]:
    # A program, and not the options of `subprocess`: with these Python forks, which ends a process that uses gRPC.
    return ("setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups") if user else ()


def _free_port() -> int:
    # None that the kernel gives to whoever asks for any: it must still be free after a restart.
    for port in random.sample(_PORTS, len(_PORTS)):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    pytest.skip("no port is free for PostgreSQL")


@contextlib.contextmanager
def run_postgres() -> Iterator[Postgres]:
    programs, user = _programs(), _user()
    with tempfile.TemporaryDirectory(prefix="nst-postgres-") as name:
        folder = Path(name)
        password, data = secrets.token_urlsafe(16), folder / "data"
        (folder / "password").write_text(password)
        if user:
            for path in (folder, folder / "password"):
                os.chown(path, user.pw_uid, user.pw_gid)
        owner = ["-U", "postgres", "-A", "scram-sha-256", "--pwfile", folder / "password"]
        subprocess.run(
            [*_as_user(user), programs / "initdb", "-D", data, *owner, "-N", "-E", "UTF8", "--locale=C"],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=folder,
        )
        server = Postgres(_free_port(), password, programs, data, _as_user(user))
        server.start()
        try:
            yield server
        finally:
            server.stop()
