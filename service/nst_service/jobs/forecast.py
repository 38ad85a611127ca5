"""When jobs will start and end: the rules of `placement` played forward. Pure."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from nst_service.jobs.placement import Claim, Room, placements


@dataclass(frozen=True, slots=True)
class Span:
    """When a job is expected on its device, in seconds from now."""

    start: float
    end: float


def forecast(running: Sequence[Sequence[Claim]], waiting: Sequence[Claim], rooms: Sequence[Room]) -> list[Span]:
    """Return when each of the waiting jobs will start and end, if nothing else comes and no job ends early.

    Args:
        running: the jobs of each device.
        waiting: in the order of their arrival.
        rooms: of each device.
    """
    # Jobs go by their place in the queue of now, those that run by numbers below zero.
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
    """Return after how many seconds the first of the jobs that share a device ends."""
    return min(claim.seconds / claim.weight for claim in claims) * sum(claim.weight for claim in claims)


def _after(jobs: Mapping[int, Claim], seconds: float) -> dict[int, Claim]:
    """Return what is left of the claims of the jobs that share a device after so many seconds."""
    served = seconds / sum(claim.weight for claim in jobs.values()) if jobs else 0.0
    left = {place: claim.seconds - served * claim.weight for place, claim in jobs.items()}
    # Rounding leaves a rest of what has ended.
    return {
        place: dataclasses.replace(claim, seconds=left[place])
        for place, claim in jobs.items()
        if left[place] > 1e-9 * claim.seconds
    }
