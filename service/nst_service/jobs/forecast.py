"""A forecast of when waiting jobs start and end: the rules of `placement` played forward. This module is pure."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from nst_service.jobs.placement import Claim, Room, placements


@dataclass(frozen=True, slots=True)
class Span:
    """The expected time of a job on its device, in seconds from now."""

    start: float
    end: float


def forecast(running: Sequence[Sequence[Claim]], waiting: Sequence[Claim], rooms: Sequence[Room]) -> list[Span]:
    """Return when each of the waiting jobs starts and ends, if no other job arrives and none ends early.

    Args:
        running: the claims of the running jobs, for each device.
        waiting: the claims of the waiting jobs in the order of their arrival.
        rooms: the room of each device.
    """
    # The key of a waiting job is its present place in the queue. The keys of running jobs are negative.
    devices: list[dict[int, Claim]] = [dict(enumerate(claims, -len(claims))) for claims in running]
    queue = dict(enumerate(waiting))
    starts: dict[int, float] = {}
    ends: dict[int, float] = {}
    now = 0.0
    while len(ends) < len(waiting):
        places = list(queue)
        joined = list(placements([list(jobs.values()) for jobs in devices], list(queue.values()), rooms, now))
        for index, device in joined:
            devices[device][places[index]] = queue.pop(places[index])
            starts[places[index]] = now
        seconds = min(_until_next_end(jobs.values()) for jobs in devices if jobs)
        now += seconds
        for device, jobs in enumerate(devices):
            devices[device] = _after(jobs, seconds)
            ends |= {place: now for place in jobs.keys() - devices[device].keys() if place >= 0}
    return [Span(starts[place], ends[place]) for place in range(len(waiting))]


def _until_next_end(claims: Collection[Claim]) -> float:
    """Return the seconds until the first of the jobs that share a device ends."""
    return min(claim.seconds / claim.weight for claim in claims) * sum(claim.weight for claim in claims)


def _after(jobs: Mapping[int, Claim], seconds: float) -> dict[int, Claim]:
    """Return what is left of the claims of the jobs that share a device when the seconds have passed."""
    served = seconds / sum(claim.weight for claim in jobs.values()) if jobs else 0.0
    left = {place: claim.seconds - served * claim.weight for place, claim in jobs.items()}
    # Rounding leaves a small rest of a job that has ended.
    return {
        place: dataclasses.replace(claim, seconds=left[place])
        for place, claim in jobs.items()
        if left[place] > 1e-9 * claim.seconds
    }
