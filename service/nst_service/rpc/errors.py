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
