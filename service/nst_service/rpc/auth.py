"""Who calls: known by a bearer token, else by the certificate of the client, else anyone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

import grpc
from grpc_health.v1 import health

from nst_service.jobs.quotas import ANYONE, Owner
from nst_service.reloaded import Reloaded
from nst_service.rpc.status import UnauthenticatedError, abort_arguments, status_of
from nst_service.tokens import Entry, find

_HEADER = "authorization"
_SCHEME = "bearer"
_OPEN = f"/{health.SERVICE_NAME}/"
"""What needs no token: load balancers and orchestrators have none."""

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")
_Metadata = Iterable[tuple[str, str | bytes]]


class Authenticator:
    """Tells whose jobs a call may start and see."""

    def __init__(self, tokens: Reloaded[tuple[Entry, ...]] | None = None):
        """Know callers by tokens, or, without any, by their certificates where they have some."""
        self._tokens = tokens

    def admit(self, metadata: _Metadata) -> Owner | None:
        """Return the owner that a call's token names; None where the server has no tokens.

        Raises:
            UnauthenticatedError: it has no token, or one that nobody has.
        """
        if self._tokens is None:
            return None
        owner = find(self._tokens.value, _bearer(metadata))
        if owner is None:
            raise UnauthenticatedError("this server does not accept the token")
        return owner

    def of(self, context: grpc.aio.ServicerContext[Any, Any]) -> Owner:
        """Return the owner of what a call does.

        Raises:
            UnauthenticatedError: the token is no longer accepted.
        """
        owner = self.admit(context.invocation_metadata() or ())
        if owner is not None:
            return owner
        identities = context.peer_identities()
        return Owner(name=", ".join(name.decode(errors="replace") for name in identities)) if identities else ANYONE


class TokenInterceptor(grpc.aio.ServerInterceptor):
    """Refuses calls without a token before anything of them is read, whatever they call: all but the health service."""

    def __init__(self, callers: Authenticator):
        self._callers = callers

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[_Request, _Response] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[_Request, _Response] | None:
        """Pass a call on, or return what refuses it."""
        if not handler_call_details.method.startswith(_OPEN):
            try:
                self._callers.admit(handler_call_details.invocation_metadata)
            except UnauthenticatedError as error:
                return _refusal(error)
        return await continuation(handler_call_details)


def _bearer(metadata: _Metadata) -> str:
    values = [value for key, value in metadata if key == _HEADER]
    scheme, _, token = str(values[0]).partition(" ") if len(values) == 1 else ("", "", "")
    if scheme.lower() != _SCHEME or not token:
        raise UnauthenticatedError("this server wants one header 'authorization: Bearer TOKEN'")
    return token.strip()


def _refusal(error: UnauthenticatedError) -> grpc.RpcMethodHandler[Any, Any]:
    async def refuse(requests: object, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        del requests
        await context.abort(*abort_arguments(status_of(error)))

    # Of streams both ways, so that gRPC does not wait for a request first; the client sees the status only.
    return grpc.stream_stream_rpc_method_handler(refuse)
