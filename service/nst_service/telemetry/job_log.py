"""The log of jobs: a line for each job at its end, for refusals, for outages of the store and for a drain."""

import logging
import time
import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nst_service.jobs.events import Completed, Progress, ResultHeader, Started
from nst_service.jobs.job import Drained, End, Ended, Job, Moved
from nst_service.jobs.observer import (
    DrainBegan,
    DrainEnded,
    Fact,
    JobAccepted,
    JobEnded,
    JobRefused,
    JobStarted,
    RecoveryFailed,
    StoreCalled,
)
from nst_service.lifecycle import JobState
from nst_service.telemetry.calls import CallEnded, current_trace_id, note_refusal
from nst_service.telemetry.outage import Outage, OutageBegan, OutageEnded
from nst_service.telemetry.rate_limit import RateLimit

_log = logging.getLogger(__name__)

_MAX_MESSAGE = 300
"""The largest number of characters of the message of a refusal."""
_MOVED, _DRAINED = "moved", "drained"
"""What a line has for the state of a job that goes on elsewhere, or after the next start."""


@dataclass
class _Known:
    """What the log has noted of a job before its end."""

    trace: str = ""
    started_at: float | None = None


class JobLog:
    """Logs the facts that an operator looks for. It is an observer of jobs and of calls."""

    def __init__(
        self,
        reason_of: Callable[[Exception], str],
        refusals_of_calls: frozenset[str] = frozenset(),
        clock: Callable[[], float] = time.monotonic,
    ):
        """Make a log.

        Args:
            reason_of: returns the reason that the client gets with an error.
            refusals_of_calls: the reasons with which calls are refused before their request reaches the scheduler.
            clock: returns seconds that never go back.
        """
        self._reason_of = reason_of
        self._refusals_of_calls = refusals_of_calls
        self._clock = clock
        self._known: weakref.WeakKeyDictionary[Job, _Known] = weakref.WeakKeyDictionary()
        self._outage = Outage()
        self._refusals = RateLimit()
        self._drained: Counter[str] | None = None
        """The numbers of jobs by what became of them since a drain has begun; None before."""

    def notify(self, fact: Fact) -> None:
        """Log a fact."""
        match fact:
            case JobAccepted(job):
                self._known[job] = _Known(trace=current_trace_id())
                _log.debug("job accepted", extra=self._identity(job))
            case JobStarted(job):
                self._known.setdefault(job, _Known()).started_at = self._clock()
            case JobRefused(owner, error):
                note_refusal()
                self._log_refusal(self._reason_of(error), str(error), owner)
            case JobEnded(job, end):
                self._log_end(job, end)
            case RecoveryFailed(job_id, error):
                failed = {"job": job_id, "state": JobState.FAILED.value, "reason": self._reason_of(error)}
                _log.warning("job ended", extra=failed)
            case StoreCalled():
                self._note_store(fact)
            case DrainBegan():
                self._drained = Counter()
                fields = {"running": fact.running, "waiting": fact.waiting, "grace_seconds": float(fact.grace)}
                _log.info("drain begins", extra=fields)
            case DrainEnded():
                self._log_drain(fact)
            case _:
                pass

    def begin_call(self, method: str) -> None:
        """Do nothing."""

    def end_call(self, call: CallEnded) -> None:
        """Log a call that is refused before its request reaches the scheduler."""
        if call.reason in self._refusals_of_calls and not call.is_refusal_known:
            self._log_refusal(call.reason, call.message, "", method=call.method)

    def _identity(self, job: Job) -> dict[str, Any]:
        known = self._known.get(job)
        fields = {
            "job": job.id,
            "request": job.plan.request_id,
            "owner": job.owner,
            "trace": known.trace if known else "",
        }
        return {name: value for name, value in fields.items() if value}

    def _log_end(self, job: Job, end: End) -> None:
        fields = self._identity(job) | {"state": _state(end)}
        level = logging.INFO
        if isinstance(end, Ended):
            if end.stop_reason:
                fields["stop_reason"] = end.stop_reason.value
            if end.error:
                fields["reason"] = self._reason_of(end.error)
            if end.state is JobState.FAILED:
                level = logging.WARNING
        _log.log(level, "job ended", extra=_rounded(fields | self._work(job)))
        if self._drained is not None:
            self._drained[_fate(job, end)] += 1

    def _work(self, job: Job) -> dict[str, Any]:
        """Return what a job has done on this server."""
        size = job.run_state.outline.size
        fields: dict[str, Any] = {"width": size.width, "height": size.height, "earlier_runs": job.plan.earlier_runs}
        known = self._known.pop(job, _Known())
        if started := job.log.latest(Started):
            fields |= {"device": started.device, "queued_seconds": started.queued_seconds}
            fields["decoding_seconds"] = job.decoding_seconds
        else:
            fields["queued_seconds"] = self._clock() - job.plan.accepted_at
        if completed := job.log.latest(Completed):
            timings = completed.timings
            fields |= {
                "iterations": completed.iterations,
                "running_seconds": timings.targets + timings.optimize,
                "encoding_seconds": timings.encode,
            }
        else:
            progress = job.log.latest(Progress)
            fields["iterations"] = progress.iteration if progress else 0
            if known.started_at is not None:
                fields["running_seconds"] = self._clock() - known.started_at
        if header := job.log.latest(ResultHeader):
            fields["bytes"] = header.size_bytes
        return fields

    def _log_refusal(self, reason: str, message: str, owner: str, **more: str) -> None:
        now = self._clock()
        if self._refusals.allows(reason, now):
            fields = {"reason": reason, "owner": owner, "trace": current_trace_id(), "detail": message[:_MAX_MESSAGE]}
            given = {name: value for name, value in (fields | more).items() if value}
            _log.info("request refused", extra=given)
        self._log_suppressed(now)

    def _log_suppressed(self, now: float) -> None:
        for reason, count in self._refusals.ended(now):
            _log.info("further requests refused", extra={"reason": reason, "count": count})

    def _note_store(self, call: StoreCalled) -> None:
        now = self._clock()
        match self._outage.note(call, now):
            case OutageBegan(operation, error):
                _log.error("the store is away: %s", error.described(), extra={"operation": operation})
            case OutageEnded(seconds, failures):
                fields = _rounded({"seconds": seconds, "failed_operations": failures})
                _log.warning("the store is back", extra=fields)
        self._log_suppressed(now)

    def _log_drain(self, fact: DrainEnded) -> None:
        counts = self._drained or Counter()
        fields = {fate: counts[fate] for fate in ("finished", "kept", "moved", "cancelled", "failed")}
        _log.info("drain ended", extra=fields | {"is_idle": fact.is_idle})


def _rounded(fields: dict[str, Any]) -> dict[str, Any]:
    """Return fields with three decimals in each float."""
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in fields.items()}


def _state(end: End) -> str:
    match end:
        case Ended(state):
            return state.value
        case Moved():
            return _MOVED
        case Drained():
            return _DRAINED


def _fate(job: Job, end: End) -> str:
    """Return what became of a job in a drain: kept jobs are stored and go on at the next start."""
    match end:
        case Ended(JobState.SUCCEEDED):
            return "finished"
        case Ended(JobState.FAILED):
            return "failed"
        case Ended():
            return "cancelled"
        case Moved():
            return "moved"
        case Drained():
            return "kept" if job.plan.request_id is not None else "cancelled"
