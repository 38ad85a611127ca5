"""The fields of a request: one list, which every method that takes them shares (PEP 692)."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypedDict, TypeVar, cast, get_args, get_type_hints

from nst_client.options import OutputOptions, Picture, TransferOptions

_F = TypeVar("_F", bound=Callable[..., Any])


class EstimateFields(TypedDict, total=False):
    """The fields that say what to make of a content picture and its styles. Each may be left out."""

    content_mask: Picture | None
    """White where the content may change, grey at soft edges. Default: it may change everywhere."""
    init_picture: Picture | None
    """The picture to start from. Default: see `TransferOptions.init`."""
    reference: Picture | None
    """The picture that the result shall stay close to: for a video, the previous result warped to this frame."""
    reference_mask: Picture | None
    """White where the reference counts. Default: it counts everywhere."""
    options: TransferOptions | None
    """How to stylise. Default: as the server does by itself."""
    output: OutputOptions | None
    """How to encode the result. Default: as the server does by itself."""


class SubmitFields(EstimateFields, total=False):
    """The fields of a request for a job that continues by itself. Each may be left out."""

    request_id: str | None
    """The name of the request: 1 to 128 printable ASCII characters. A request that is sent again with the same name
    follows the job that it started before. Default: a new name for each call."""


class StylizeFields(SubmitFields, total=False):
    """The fields of a request to stylise a picture, besides the content picture and its styles. Each may be left out.

    `StyleTransferClient.stylize` and its relatives take them as keyword arguments. A function that passes them on
    does the same: `def render(photo: Path, **fields: Unpack[StylizeFields])`.
    """

    keep_running: bool
    """Whether the job continues, and its result is kept, when nobody follows it any more. Default: false; the job ends
    when the call ends early, for whatever reason."""


def spell_out(kind: type) -> Callable[[_F], _F]:
    """Return a decorator that names every field of a TypedDict in the signature of a function.

    Python itself shows `**fields: Unpack[StylizeFields]` there, which tells a reader of `help()` no name.

    Args:
        kind: the TypedDict whose fields the function takes as `**fields`.
    """

    def decorate(function: _F) -> _F:
        signature = inspect.signature(function)
        parameters = [
            parameter for parameter in signature.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD
        ]
        first_keyword = sum(parameter.kind is not parameter.KEYWORD_ONLY for parameter in parameters)
        parameters[first_keyword:first_keyword] = [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                default=None if type(None) in get_args(hint) else hint(),
                annotation=hint,
            )
            for name, hint in get_type_hints(kind).items()
        ]
        cast(Any, function).__signature__ = signature.replace(parameters=parameters)
        return function

    return decorate


def check_fields(function: Callable[..., object], fields: Mapping[str, object]) -> None:
    """Check the names of the keyword arguments that a function with a spelled-out signature received as `**fields`.

    Raises:
        TypeError: the function does not take one of them; the message names it and what the function takes.
    """
    accepted = inspect.signature(function).parameters
    for name in fields:
        if name not in accepted:
            raise TypeError(
                f"{function.__qualname__}() got an unexpected keyword argument {name!r}, "
                f"accepted are {', '.join(accepted)}"
            )
