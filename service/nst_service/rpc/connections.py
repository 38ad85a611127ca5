"""The connections of this process as the operating system knows them.

`grpc.aio` cannot end a call while a message of the call is being sent: its status would have to follow the message,
and a client that does not read takes neither. Only the end of the connection frees the message.
"""

import contextlib
import os
import socket
from pathlib import Path
from urllib.parse import unquote

_OPEN_FILES = Path("/dev/fd")


def disconnect(peer: str) -> bool:
    """Shut down the connection to a peer. gRPC then cancels all of its calls.

    Args:
        peer: the peer as `grpc.aio.ServicerContext.peer` names it, such as "ipv4:127.0.0.1:5000".

    Returns:
        Whether the connection was found. The peers of a Unix socket have no names.
    """
    kind, _, address = peer.partition(":")
    host, _, port = unquote(address).rpartition(":")
    if kind not in ("ipv4", "ipv6") or not port.isdigit():
        return False
    name = (host.strip("[]").partition("%")[0], int(port))
    return any(_shut_down(int(file), name) for file in os.listdir(_OPEN_FILES))  # noqa: PTH208 # Plain names are wanted.


def _shut_down(file: int, name: tuple[str, int]) -> bool:
    try:
        connection = socket.socket(fileno=file)
    except OSError:
        # Not a socket, or closed since.
        return False
    try:
        with contextlib.suppress(OSError):
            found = connection.getpeername()
            # A socket for both families names IPv4 peers by IPv6 addresses.
            if isinstance(found, tuple) and (found[0].partition("%")[0].removeprefix("::ffff:"), found[1]) == name:
                connection.shutdown(socket.SHUT_RDWR)
                return True
        return False
    finally:
        # The file belongs to gRPC.
        connection.detach()
