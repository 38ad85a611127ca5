"""Errors of the engine. Their messages are meant for clients: they name no file and quote no library."""

from dataclasses import dataclass


class EngineError(Exception):
    """The base class of all errors that the engine raises on purpose."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One invalid field of a request."""

    field: str
    """The path of the field in the request: "content", "styles[1].scale", "options.iterations"."""
    description: str
    """A predicate of the field that says what is wrong and what is accepted: "is 0; accepted values are 1 to 100"."""


class InvalidRequestError(EngineError):
    """The request has invalid fields."""

    def __init__(self, violations: list[Violation]):
        super().__init__("; ".join(f"{violation.field}: {violation.description}" for violation in violations))
        self.violations = tuple(violations)


class PictureError(EngineError):
    """The bytes are no acceptable picture. The message is a predicate, as that of a `Violation` is."""


class PictureTooCostlyError(PictureError):
    """Decoding the picture takes more memory or time than this server allows. Another server may allow more."""


class WeightsError(EngineError):
    """The weights cannot be found, read or trusted. The message is for the operator and may name a file."""


class NonFiniteLossError(EngineError):
    """The loss stayed infinite or undefined after every attempt to recover."""


class SnapshotError(EngineError):
    """The bytes are no snapshot, or a snapshot is of another transfer."""
