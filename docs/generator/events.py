"""The page of the events, from the comments of the contract and, for those of the client alone, its docstrings."""

from nst_client.events import Disconnected, Reconnected

from docs.generator.contract import Contract, contract
from docs.generator.markdown import code, table
from docs.generator.sources import documented

_INTRODUCTION = """`Stylize` and `WatchJob` stream the events of a job. The Python client yields them as dataclasses
with the same names and fields. It assembles `ResultHeader` and `ResultChunk` into the result instead of yielding them.
`nst-client --json` prints each event as a JSON object, whose key `event` has the name in lower case.
"""

_ORDER = ("Accepted", "Queued", "Started", "Preparing", "Progress", "Preview", "Reduced", "ResultHeader", "ResultChunk")
"""The events as they happen; the others follow."""


def body() -> str:
    """Return the page."""
    source = contract()
    event = source.messages["JobEvent"]
    texts = {field.type: field.text for field in event.fields if field.type in source.messages}
    kinds = dict.fromkeys(name for name in (*_ORDER, *texts) if name in texts)
    overview = table(("event", "meaning"), ((f"[{kind}](#{kind.lower()})", source.cell(texts[kind])) for kind in kinds))
    (sequence,) = (field for field in event.fields if field.name == "sequence")
    return "\n".join(
        [
            _INTRODUCTION,
            overview,
            f"Every event has a `sequence`: {source.cell(sequence.text[0].lower() + sequence.text[1:])}\n",
            *(_message(source, kind, "##") for kind in kinds),
            _own(Reconnected, "Only the Python client yields this event."),
            _own(Disconnected, "`on_disconnect` of the Python client gets this, and `nst-client --json` prints it."),
            "## Parts of events\n",
            *(_message(source, kind, "###") for kind in ("CostEstimate", "LossTerm", "Timings", "Weights")),
            *(_enum(source, kind) for kind in ("LossKind", "StopReason")),
        ]
    )


def _message(source: Contract, name: str, level: str) -> str:
    message = source.messages[name]
    rows = [(code(field.name), field.type, source.cell(field.text)) for field in message.fields]
    return f"{level} {name}\n\n{source.prose(message.text)}\n\n" + table(("field", "type", "meaning"), rows)


def _enum(source: Contract, name: str) -> str:
    enum = source.enums[name]
    rows = [(code(value.name), source.cell(value.text)) for value in enum.values]
    return f"### {name}\n\n{source.prose(enum.text)}\n\n" + table(("value", "meaning"), rows)


def _own(kind: type, remark: str) -> str:
    """Return the section of a dataclass that is no message of the contract."""
    text = documented(kind)
    rows = [(code(field.name), field.type, field.text) for field in text.fields]
    return f"## {kind.__name__}\n\n{remark}\n\n{text.text}\n" + table(("field", "type", "meaning"), rows)
