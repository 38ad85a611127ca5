"""Full or read-only disks, damaged files and clocks that jump: no accepted job is lost."""

import asyncio
import contextlib
import os
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import grpc
import pytest
from nst.v1 import style_transfer_pb2 as pb

from tests.reliability.serving import (
    TERMINAL,
    KillableServer,
    Launcher,
    MakeRequest,
    Story,
    Undisturbed,
    refusal,
    told,
)

_KEEP = pb.DISCONNECT_POLICY_KEEP_RUNNING
_HOURS = 6 * 3600.0
_NOBODY = 65534


def blobs_of(server: KillableServer, kind: str) -> list[Path]:
    """Return the files of the blobs that the jobs use."""
    with contextlib.closing(sqlite3.connect(server.data / "nst.sqlite")) as database:
        rows = database.execute("SELECT sha256 FROM blob_uses WHERE kind = ?", (kind,)).fetchall()
    return [server.data / "blobs" / str(name) for (name,) in rows]


def blob_of(server: KillableServer, kind: str) -> Path:
    """Return the file of the blob that the only job uses."""
    [file] = blobs_of(server, kind)
    return file


async def interrupted(
    server: KillableServer, request: pb.StylizeRequest, faults: Mapping[str, int] = MappingProxyType({})
) -> Story:
    """Return the story of a job whose server has died after a checkpoint."""
    await server.serve({**faults, "stall": 10})
    async with server.stub() as stub:
        story = Story()
        await story.read(stub.stylize(request), "progress")
        while not blobs_of(server, "checkpoint"):
            await asyncio.sleep(0.01)
    server.kill()
    return story


@pytest.fixture
def small_disk(server: KillableServer) -> Iterator[Path]:
    """Put the jobs of the server on a file system of 8 MiB."""
    server.data.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(server.data)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("a file system can only be mounted by root")
    yield server.data
    server.kill()
    subprocess.run(["umount", "--lazy", str(server.data)], check=True)


def fill(ballast: Path) -> bool:
    """Fill a disk to its last byte, and return whether there was anything to fill."""
    size = ballast.stat().st_size if ballast.exists() else 0
    with contextlib.suppress(OSError), ballast.open("ab", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return ballast.stat().st_size > size


@pytest.mark.parametrize("is_killed", [False, True])
async def test_a_full_disk_refuses_jobs_and_those_that_run_are_delivered_and_kept_when_there_is_room(
    server: KillableServer, named: MakeRequest, undisturbed: Undisturbed, small_disk: Path, is_killed: bool
):
    request, ballast = named(300, disconnect_policy=_KEEP), small_disk / "ballast"
    await server.serve(min_free_bytes=0)
    async with server.stub() as stub:
        call, story = stub.stylize(request), Story()
        await story.read(call, "progress")
        # A checkpoint that replaces another one leaves the room of that.
        while fill(ballast):
            await story.read(call, "progress")
        code, reason = await refusal(stub.stylize(named(seed=1)))
        assert (code, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "STORE_FULL")
        await story.read(call)
        assert story.data == await undisturbed(request)
        again = Story()
        await again.read(stub.watch(story.job_id))
        assert again == story
        if is_killed:
            server.kill()
            await server.serve(min_free_bytes=0)
        ballast.unlink()
        await stub.idle()
        assert (await told(stub, story.job_id)).data == story.data
        await Story().read(stub.stylize(named(seed=1)))
    server.kill()
    await server.serve(min_free_bytes=0)
    async with server.stub() as stub:
        assert (await told(stub, story.job_id)).data == story.data


@pytest.fixture
def own_server(launcher: Launcher) -> Iterator[KillableServer]:
    """A server that respects the permissions of its directory. As root it becomes another user (see `faults`)."""
    with tempfile.TemporaryDirectory(prefix="nst-jobs-") as name:
        if os.geteuid() == 0:
            os.chown(name, _NOBODY, _NOBODY)
        server = KillableServer(launcher, Path(name))
        yield server
        server.kill()
        for path in (Path(name), *Path(name).rglob("*")):
            path.chmod(0o700)


def heeding_permissions() -> dict[str, int]:
    if os.geteuid():
        return {}
    python = Path(sys.executable).resolve()
    if not all(path.stat().st_mode & stat.S_IXOTH for path in (python, *python.parents)):
        pytest.skip("only root may run this Python, so that no other user can start a process that decodes")
    return {"user": _NOBODY}


async def test_a_directory_that_becomes_read_only_refuses_jobs_and_those_that_run_are_delivered(
    own_server: KillableServer, named: MakeRequest, undisturbed: Undisturbed
):
    server, request = own_server, named(300, disconnect_policy=_KEEP)
    await server.serve(heeding_permissions())
    async with server.stub() as stub:
        call, story = stub.stylize(request), Story()
        await story.read(call, "progress")
        for folder in (server.data / "blobs", server.data):
            folder.chmod(0o500)
        code, reason = await refusal(stub.stylize(named(seed=1)))
        assert (code, reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_READ_ONLY")
        await story.read(call)
        assert story.data == await undisturbed(request)
        for folder in (server.data, server.data / "blobs"):
            folder.chmod(0o700)
        await stub.idle()
    server.kill()
    await server.serve(heeding_permissions())
    async with server.stub() as stub:
        assert (await told(stub, story.job_id)).data == story.data


@pytest.mark.parametrize("kind", ["request", "checkpoint"])
async def test_a_job_that_cannot_be_read_for_a_while_is_not_lost_and_keeps_nobody_from_the_device(
    own_server: KillableServer, named: MakeRequest, undisturbed: Undisturbed, kind: str
):
    server, request = own_server, named(disconnect_policy=_KEEP)
    story = await interrupted(server, request, heeding_permissions())
    file = blob_of(server, kind)
    file.chmod(0o000)
    await server.serve(heeding_permissions())
    async with server.stub() as stub:
        await Story().read(stub.stylize(named(5)))
        assert (await stub.job(story.job_id)).state not in TERMINAL
        file.chmod(0o600)
        await story.read(stub.watch(story.job_id, story.last))
    assert story.data == await undisturbed(request)


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:100])


@pytest.mark.parametrize("damage", [flip, cut, Path.unlink])
async def test_a_job_whose_checkpoint_is_damaged_begins_anew(
    server: KillableServer, named: MakeRequest, undisturbed: Undisturbed, damage: Callable[[Path], None]
):
    request = named(40, disconnect_policy=_KEEP)
    story = await interrupted(server, request)
    damage(blob_of(server, "checkpoint"))
    await server.serve()
    async with server.stub() as stub:
        await story.read(stub.watch(story.job_id, story.last))
        await stub.idle()
    assert story.data == await undisturbed(request)


async def test_a_job_whose_request_is_damaged_fails_and_says_so_and_nothing_else_does(
    server: KillableServer, named: MakeRequest
):
    story = await interrupted(server, named(40, disconnect_policy=_KEEP))
    flip(blob_of(server, "request"))
    await server.serve()
    async with server.stub() as stub:
        await Story().read(stub.stylize(named(5)))
        await stub.idle()
        job = await stub.job(story.job_id)
        assert job.state == pb.JOB_STATE_FAILED
        assert job.failure.reason == "REQUEST_LOST"


async def test_a_picture_that_is_damaged_is_never_delivered(server: KillableServer, named: MakeRequest):
    await server.serve()
    async with server.stub() as stub:
        story = Story()
        await story.read(stub.stylize(named(5)))
        flip(blob_of(server, "result"))
        assert await refusal(stub.watch(story.job_id)) == (grpc.StatusCode.DATA_LOSS, "DATA_LOSS")


@pytest.mark.parametrize("step", [_HOURS, -_HOURS])
async def test_no_job_is_lost_where_the_clock_steps(
    server: KillableServer, named: MakeRequest, undisturbed: Undisturbed, step: float
):
    running, ended = named(60, disconnect_policy=_KEEP), named(5)
    await server.serve({"stall": 30})
    async with server.stub() as stub:
        before = Story()
        await before.read(stub.stylize(ended))
        story = Story()
        await story.read(stub.stylize(running), "progress")
    server.kill()
    await server.serve({"clock": step})
    async with server.stub() as stub:
        await story.read(stub.watch(story.job_id, story.last))
        # Longer than between two looks for what is old.
        await asyncio.sleep(0.3)
        assert (await told(stub, before.job_id)).data == before.data
        await stub.idle()
    assert story.data == await undisturbed(running)


@pytest.mark.parametrize("step", [_HOURS, -_HOURS])
async def test_a_deadline_is_not_put_off_where_the_clock_steps(server: KillableServer, named: MakeRequest, step: float):
    story = await server.serve_with_deadline(named, "preview")
    server.kill()
    await server.serve({"clock": step})
    async with server.stub() as stub:
        await story.read(stub.watch(story.job_id, story.last))
        assert story.completed
        assert story.completed.stop_reason == pb.STOP_REASON_DEADLINE
        await stub.idle()
