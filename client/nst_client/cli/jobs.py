"""`nst-client watch`, `get`, `list` and `cancel`: commands about existing jobs."""

import functools
import itertools
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, TypedDict

import click

from nst_client.cli.connection import Connection, answer_timeout, seconds
from nst_client.cli.exits import CANCELLED, INCOMPLETE, reported, writing_result
from nst_client.cli.interrupts import deferred_interrupts, leaving
from nst_client.cli.outputs import STDOUT, output_file, writable
from nst_client.cli.run_flags import Display, display_flags
from nst_client.cli.streams import print_line
from nst_client.cli.tables import print_rows, print_table
from nst_client.events import StopReason
from nst_client.info import Job, JobState
from nst_client.json import to_json

_LARGEST_PAGE = 1000
"""The most jobs of one page that the contract allows."""


class Name(TypedDict):
    """The name of a job: exactly one of the two ids is set."""

    job_id: str | None
    request_id: str | None


def _named(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command JOB_ID and --request-id, and pass them to it as one `job` for the methods of the client."""

    @click.argument("job_id", required=False)
    @click.option("--request-id", metavar="ID", help="Id of the request, as given to `stylize`, in place of JOB_ID.")
    @functools.wraps(command)
    def with_job(*arguments: Any, job_id: str | None, request_id: str | None, **flags: Any) -> Any:
        if job_id is not None and request_id is not None:
            raise click.UsageError("JOB_ID and --request-id exclude each other")
        if job_id is None and request_id is None:
            raise click.UsageError("JOB_ID or --request-id is needed")
        return command(*arguments, job={"job_id": job_id, "request_id": request_id}, **flags)

    return with_job


@click.command()
@_named
@click.option("-o", "--out", metavar="FILE", type=output_file, callback=writable, help="File of the result.")
@click.option("--timeout", metavar="SECONDS", type=seconds, help="Time limit.")
@display_flags
@click.pass_context
def watch(context: click.Context, /, *, job: Name, out: Path | None, timeout: float | None, display: Display) -> None:
    """Follow a job to its end. Ctrl-C ends the command, but not the job."""
    if out == STDOUT and display.as_json:
        raise click.UsageError("--json and --out - exclude each other: both write to stdout")
    connection: Connection = context.obj
    with (
        reported(connection.target),
        deferred_interrupts() as interrupts,
        display.open_failsafe() as report,
        connection.client(on_disconnect=report.outage) as client,
        client.watch(**job, timeout=timeout) as events,
        leaving(events, interrupts, report.note),
    ):
        for event in events:
            report.event(event)
        result = events.result
        if out is not None:
            with writing_result(out, result.job_id, connection.target):
                result.save(out)
            report.saved(out, result)
    if result.completed.stop_reason is StopReason.CANCELLED:
        context.exit(CANCELLED)
    context.exit(0 if report.is_complete else INCOMPLETE)


@click.command()
@_named
@click.option("-o", "--out", metavar="FILE", type=output_file, callback=writable, help="File of the finished picture.")
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object instead of a table.")
@answer_timeout
@click.pass_obj
def get(connection: Connection, /, *, job: Name, out: Path | None, as_json: bool, timeout: float) -> None:
    """Describe a job."""
    is_stdout_taken = out == STDOUT
    if is_stdout_taken and as_json:
        raise click.UsageError("--json and --out - exclude each other: both write to stdout")
    with reported(connection.target), connection.client() as client:
        found = client.get(**job, timeout=timeout)
        if out is not None and found.result is not None:
            with client.watch(found.job_id) as events:
                for _ in events:
                    pass
                with writing_result(out, found.job_id, connection.target):
                    events.result.save(out)
    if as_json:
        print_line(to_json(found))
    else:
        print_rows(_rows(found), to_stderr=is_stdout_taken)
    if out is not None and found.result is None:
        raise click.ClickException(f"the job {found.job_id} has no picture: it is {found.state}")


@click.command("list")
@click.option(
    "--state",
    "states",
    type=click.Choice([str(state) for state in JobState if state is not JobState.UNKNOWN]),
    multiple=True,
    help="List only jobs in this state. Repeatable.",
)
@click.option("--limit", type=click.IntRange(min=1), default=50, show_default=True, help="Most jobs to list.")
@click.option("--json", "as_json", is_flag=True, help="Write each job as a JSON object on one line.")
@answer_timeout
@click.pass_obj
def list_jobs(connection: Connection, /, *, states: tuple[str, ...], limit: int, as_json: bool, timeout: float) -> None:
    """List your jobs, the newest first."""
    with reported(connection.target), connection.client() as client:
        jobs = client.list_jobs(map(JobState, states), page_size=min(limit, _LARGEST_PAGE), timeout=timeout)
        found = itertools.islice(jobs, limit)
        if as_json:
            for job in found:
                print_line(to_json(job))
        else:
            print_table(("job", "state", "created", "size", "iterations", "request"), map(_row, found))


@click.command()
@_named
@answer_timeout
@click.pass_obj
def cancel(connection: Connection, /, *, job: Name, timeout: float) -> None:
    """Cancel a job. Commands and programs that follow it get the best picture so far."""
    with reported(connection.target), connection.client() as client:
        state = client.cancel(**job, timeout=timeout)
    print_line(f"the job was {state}")


def _row(job: Job) -> tuple[str, ...]:
    return (
        job.job_id,
        job.state,
        _local(job.create_time),
        f"{job.width}x{job.height}",
        f"{_iterations(job)}/{job.accepted.options.iterations}",
        job.request_id,
    )


def _local(time: datetime) -> str:
    return f"{time.astimezone():%Y-%m-%d %H:%M:%S}"


def _iterations(job: Job) -> int:
    if job.completed is not None:
        return job.completed.iterations
    return 0 if job.progress is None else job.progress.iteration


def _rows(job: Job) -> dict[str, object]:
    rows: dict[str, object] = {
        "job": job.job_id,
        "request": job.request_id or None,
        "state": job.state,
        "created": _local(job.create_time),
        "ended": None if job.end_time is None else _local(job.end_time),
        "when nobody follows": job.disconnect_policy.replace("_", " "),
        "size": f"{job.width}x{job.height}",
        "iterations": f"{_iterations(job)}/{job.accepted.options.iterations}",
    }
    if job.progress is not None:
        rows["loss"] = f"{job.progress.total_loss:.4g}"
        rows["seconds left"] = f"{job.progress.eta_seconds:.0f}"
    if job.completed is not None:
        rows["loss"] = f"{job.completed.total_loss:.4g}"
        rows["stopped by"] = job.completed.stop_reason
    if job.result is not None:
        rows["picture"] = f"{job.result.media_type}, {job.result.size_bytes} bytes, SHA-256 {job.result.sha256}"
    if job.failure is not None:
        rows["failure"] = f"{job.failure.code.name}: {job.failure.message}"
    return rows
