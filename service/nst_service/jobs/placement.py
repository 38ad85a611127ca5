"""The placement of waiting jobs on devices, and the shares of jobs that run on one device. This module is pure.

Jobs of about the same length gain nothing from taking turns, because each would end when the last one does. They run
one after the other in the order of their arrival. A job runs beside others only if it is much shorter:

1. An idle device takes the first waiting job.
2. A busy device takes the first waiting job that is expected to take less than half of the time left of each job there.
   A longer job waits less than twice its own length for such a job to end. In both cases no single job makes another
   one take more than about three times as long as alone.
3. The number of jobs on a device is limited, their estimated memory must fit together, and no job may make another one
   miss a deadline that it would meet otherwise.

The jobs on a device share its time by weight. The weight is the inverse fourth root of the time that the job is
expected to take in all. Of two jobs, one that is sixteen times shorter gets two thirds of the time. The longer one
keeps one third, even if short ones follow each other without end. With equal weights a short job would take twice as
long as alone. With weights in inverse proportion to the length almost nothing would be left for a long job.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_SHORTER = 0.5
"""The largest length of a job that joins, as a share of the time left of each running job."""
_WEIGHT_EXPONENT = -0.25
_LEAST_SECONDS = 1e-3
"""The smallest length in seconds that enters a weight."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The claim of a job on a device."""

    seconds: float
    """Seconds of device time that the job still needs."""
    weight: float
    memory: int
    """Bytes that the job holds on the device."""
    slack: float = math.inf
    """Seconds until the deadline of the job; infinite for none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """The room of a device for jobs."""

    jobs: int
    """The number of jobs that may share the device."""
    memory: int
    """Bytes that these jobs may hold together."""


def weight(seconds: float) -> float:
    """Return the weight of a job that is expected to take this number of seconds in all."""
    return math.pow(max(seconds, _LEAST_SECONDS), _WEIGHT_EXPONENT)


def ends(claims: Sequence[Claim]) -> list[float]:
    """Return the seconds until the end of each of the jobs that share a device, if no other job joins."""
    # By the end of a job, each of the others has got all that it claims, or time in proportion to the weights.
    return [
        sum(min(other.seconds, other.weight * claim.seconds / claim.weight) for other in claims) for claim in claims
    ]


def placements(
    running: Sequence[Sequence[Claim]], waiting: Sequence[Claim], rooms: Sequence[Room], now: float = 0.0
) -> Iterator[tuple[int, int]]:
    """Yield the waiting jobs that join a device now, as pairs: index of the job, index of the device.

    Args:
        running: the claims of the running jobs, for each device.
        waiting: the claims of the waiting jobs in the order of their arrival.
        rooms: the room of each device.
        now: seconds since the time to which `Claim.slack` refers.
    """
    devices = [list(claims) for claims in running]
    openings = [_opening(claims, room, now) for claims, room in zip(devices, rooms, strict=True)]
    shortest = min((claim.seconds for claim in waiting), default=math.inf)
    ahead = sum(claim.seconds for claims in devices for claim in claims)
    patience = math.inf
    """The longest job in seconds that may overtake those that wait without making one miss its deadline."""
    for index, claim in enumerate(waiting):
        if all(opening.seconds <= shortest for opening in openings):
            return
        ahead += claim.seconds
        fitting = [number for number, opening in enumerate(openings) if opening.fits(claim)]
        if fitting and claim.seconds < patience:
            number = min(fitting, key=lambda number: sum(other.seconds for other in devices[number]))
            devices[number].append(claim)
            openings[number] = _opening(devices[number], rooms[number], now)
            yield index, number
        else:
            patience = min(patience, _spare(claim, now + ahead / len(devices)))


@dataclass(frozen=True, slots=True)
class _Opening:
    """The room of a device for one more job."""

    seconds: float
    """Upper bound of the length of the job in seconds, exclusive."""
    memory: float
    """Bytes that the job may hold."""

    def fits(self, claim: Claim) -> bool:
        return claim.seconds < self.seconds and claim.memory <= self.memory


def _opening(claims: Sequence[Claim], room: Room, now: float) -> _Opening:
    if not claims:
        # Every job was planned to fit when it runs alone.
        return _Opening(math.inf, math.inf)
    if len(claims) >= room.jobs:
        return _Opening(0.0, 0)
    left = sum(claim.seconds for claim in claims)
    return _Opening(
        min(min(_SHORTER * claim.seconds, _spare(claim, now + left)) for claim in claims),
        room.memory - sum(claim.memory for claim in claims),
    )


def _spare(claim: Claim, seconds: float) -> float:
    """Return how long a job can be delayed before it misses its deadline; infinite if it misses it anyway.

    Args:
        claim: the claim of the job.
        seconds: seconds to the expected end of the job without a delay.
    """
    return claim.slack - seconds if seconds <= claim.slack else math.inf
