"""The authentication of callers: by a bearer token, or by a client certificate, or not at all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from types import MappingProxyType
from typing import Any, TypeVar

import grpc
from grpc_health.v1 import health

from nst_service.jobs.quotas import ANYONE, Owner
from nst_service.reloaded import Reloaded
from nst_service.rpc.errors import UnauthenticatedError
from nst_service.rpc.status import abort_arguments, status_of
from nst_service.tokens import Entry, find

_HEADER = "authorization"
_SCHEME = "bearer"
_OPEN_PREFIX = f"/{health.SERVICE_NAME}/"
"""The prefix of the methods that need no token, because load balancers and orchestrators have none."""

_NAMES = MappingProxyType({"peer_dns": "", "peer_uri": "URI:", "peer_email": "email:", "peer_ip": "IP:"})
"""The kinds of alternative names of a certificate as gRPC calls them, with the beginning of the name of an owner."""

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")
_Metadata = Iterable[tuple[str, str | bytes]]


class Authenticator:
    """Finds the owner of a call, who alone may see the jobs that the call starts."""

    def __init__(self, tokens: Reloaded[tuple[Entry, ...]] | None = None):
        """Make an authenticator.

        Args:
            tokens: the accepted tokens; None to identify callers by their certificates, if they have any.
        """
        self._tokens = tokens

    def token_owner(self, metadata: _Metadata) -> Owner | None:
        """Return the owner of the token of a call; None if the server has no tokens.

        Raises:
            UnauthenticatedError: the call has no token, or the server does not accept it.
        """
        if self._tokens is None:
            return None
        owner = find(self._tokens.value, _bearer(metadata))
        if owner is None:
            raise UnauthenticatedError("this server does not accept the token")
        return owner

    def owner(self, context: grpc.aio.ServicerContext[Any, Any]) -> Owner:
        """Return the owner of a call.

        Raises:
            UnauthenticatedError: the server does not accept the token any more.
        """
        owner = self.token_owner(context.invocation_metadata() or ())
        if owner is not None:
            return owner
        name = _certified_name(context)
        return Owner(name=name) if name else ANYONE


class TokenInterceptor(grpc.aio.ServerInterceptor):
    """Refuses every call without an accepted token before its request is read, except calls of the health service."""

    def __init__(self, authenticator: Authenticator):
        self._authenticator = authenticator

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[_Request, _Response] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[_Request, _Response] | None:
        """Return the handler of an accepted call, or a handler that refuses the call."""
        if not handler_call_details.method.startswith(_OPEN_PREFIX):
            try:
                self._authenticator.token_owner(handler_call_details.invocation_metadata)
            except UnauthenticatedError as error:
                return _refusal(error)
        return await continuation(handler_call_details)


def _certified_name(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    """Return the names in the certificate of a call, each with its kind unless it is a DNS name; empty without names.

    The kind keeps two certificates apart that have the same text as names of different kinds.
    """
    found = context.auth_context()
    names = [f"{kind}{name.decode(errors='replace')}" for key, kind in _NAMES.items() for name in found.get(key, ())]
    if not names:
        names = [f"CN:{name.decode(errors='replace')}" for name in found.get("x509_common_name", ()) if name]
    return ", ".join(names)


def _bearer(metadata: _Metadata) -> str:
    values = [value for key, value in metadata if key == _HEADER]
    scheme, _, token = str(values[0]).partition(" ") if len(values) == 1 else ("", "", "")
    if scheme.lower() != _SCHEME or not token:
        raise UnauthenticatedError("this server requires exactly one header 'authorization: Bearer TOKEN'")
    return token.strip()


def _refusal(error: UnauthenticatedError) -> grpc.RpcMethodHandler[Any, Any]:
    async def refuse(requests: object, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        del requests
        await context.abort(*abort_arguments(status_of(error)))

    # With a stream of requests gRPC does not wait for the first one. The client sees the status only.
    return grpc.stream_stream_rpc_method_handler(refuse)
