"""Which jobs share a device, and in what proportion. Pure: claims go in, decisions come out.

Jobs of about the same length gain nothing from taking turns: each would end when the last does. So they run one after
the other, in the order of their arrival, and a job is taken beside others only where it is much shorter:

1. An idle device takes the first job that waits.
2. A busy one takes the first that waits and is expected to take less than half of what is left of each job there. One
   that is longer than that waits less than twice its own length for such a job to end, so either way no single job
   makes it take more than about three times as long as alone.
3. There are at most so many jobs on a device, their estimated memory fits in together, and no job that would still
   meet its deadline is made to miss it.

Those on a device share its time by weight. The weight falls with the fourth root of the time that a job is expected to
take in all, which is that of its pixels times its iterations: of two jobs, the one that is sixteen times shorter gets
two thirds, and the longer keeps the third part even where short ones follow each other without end. Equal weights would
make a short job take twice as long as alone; weights by the plain length would leave almost nothing to a long one.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_SHORTER = 0.5
"""Share of what is left of a running job that one which joins it may take."""
_WEIGHT_EXPONENT = -0.25
_LEAST_SECONDS = 1e-3
"""Least seconds that a job counts with in its weight."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a job asks of a device."""

    seconds: float
    """Seconds of the device that the job still needs."""
    weight: float
    memory: int
    """Bytes."""
    slack: float = math.inf
    """Seconds until its deadline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What a device offers."""

    jobs: int
    """The number of jobs that may share the device."""
    memory: int
    """Bytes that its jobs may hold together."""


def weight(seconds: float) -> float:
    """Return the weight of a job that is expected to take so many seconds in all."""
    return math.pow(max(seconds, _LEAST_SECONDS), _WEIGHT_EXPONENT)


def ends(claims: Sequence[Claim]) -> list[float]:
    """Return after how many seconds each of the jobs that share a device has had what it claims, if no other comes."""
    # What each has got of the device by the end of one: all, or in proportion to the weights.
    return [
        sum(min(other.seconds, other.weight * claim.seconds / claim.weight) for other in claims) for claim in claims
    ]


def placements(
    running: Sequence[Sequence[Claim]], waiting: Sequence[Claim], rooms: Sequence[Room], now: float = 0.0
) -> Iterator[tuple[int, int]]:
    """Yield which of the waiting jobs now joins which device, as pairs of their indices.

    Args:
        running: the jobs of each device.
        waiting: in the order of their arrival.
        rooms: of each device.
        now: seconds that have passed since the deadlines were told.
    """
    devices = [list(claims) for claims in running]
    openings = [_opening(claims, room, now) for claims, room in zip(devices, rooms, strict=True)]
    shortest = min((claim.seconds for claim in waiting), default=math.inf)
    ahead = sum(claim.seconds for claims in devices for claim in claims)
    patience = math.inf
    """Seconds by which those who wait can be overtaken before one of them misses its deadline."""
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
    """What a device has to offer for one more job."""

    seconds: float
    """Seconds that the job must stay below."""
    memory: float
    """Bytes that it may hold."""

    def fits(self, claim: Claim) -> bool:
        return claim.seconds < self.seconds and claim.memory <= self.memory


def _opening(claims: Sequence[Claim], room: Room, now: float) -> _Opening:
    if not claims:
        # Every job was planned to fit where it is alone.
        return _Opening(math.inf, math.inf)
    if len(claims) >= room.jobs:
        return _Opening(0.0, 0)
    left = sum(claim.seconds for claim in claims)
    return _Opening(
        min(min(_SHORTER * claim.seconds, _spare(claim, now + left)) for claim in claims),
        room.memory - sum(claim.memory for claim in claims),
    )


def _spare(claim: Claim, seconds: float) -> float:
    """Return for how long a job that would end after so many seconds can be held up before it misses its deadline.

    For ever where it misses it anyway.
    """
    return claim.slack - seconds if seconds <= claim.slack else math.inf
