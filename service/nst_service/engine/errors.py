"""Errors of the engine. Their messages are meant for the client: they name no path and quote no library."""

from dataclasses import dataclass


class EngineError(Exception):
    """Root of everything that the engine raises on purpose."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that is wrong with a request."""

    field: str
    """Path of the field in the request: "content", "styles[1].scale", "options.iterations"."""
    description: str
    """What was wrong and what is accepted."""


class InvalidRequestError(EngineError):
    """The request cannot be carried out as it stands."""

    def __init__(self, violations: list[Violation]):
        super().__init__("; ".join(f"{violation.field}: {violation.description}" for violation in violations))
        self.violations = tuple(violations)


class PictureError(EngineError):
    """Bytes that are no acceptable picture."""


class WeightsError(EngineError):
    """Weights that cannot be found, read or trusted. The message is for the operator and may name a file."""


class NonFiniteLossError(EngineError):
    """The loss stayed infinite or undefined after every attempt to recover."""


class SnapshotError(EngineError):
    """Bytes that are no snapshot, or a snapshot of another transfer."""
