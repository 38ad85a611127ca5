"""The errors of calls that never become a job. Their messages are meant for the client."""


class RequestTooLargeError(Exception):
    """The request is larger than the server accepts."""

    def __init__(self, size: int, limit: int):
        super().__init__(f"the request has {size} bytes; this server accepts at most {limit}")
        self.size = size
        """Size of the request in bytes."""
        self.limit = limit
        """The largest size in bytes that the server accepts."""


class MalformedRequestError(Exception):
    """The bytes of the request are not a message of the contract."""

    def __init__(self) -> None:
        super().__init__("the request is not a valid message for this method")


class UnauthenticatedError(Exception):
    """The server does not know the caller."""


class IncompleteRequestError(Exception):
    """The client has not sent its request whole in time."""

    def __init__(self, limit: str):
        """Describe the limit.

        Args:
            limit: the time in words, such as "within 2 s".
        """
        super().__init__(f"the request did not arrive whole {limit}")


class TooManyCallsError(Exception):
    """Too many calls are open."""

    def __init__(self, calls: int):
        super().__init__(f"this server or this caller has too many open calls: there are {calls}")
