"""The page of the options, from the comments of the contract and the presets of the engine."""

import click
from nst_client.cli.exits import flag_of
from nst_client.cli.stylize import stylize
from nst_service.engine.choices import Preset
from nst_service.engine.options import TransferOptions

from docs.generator.contract import Contract, Field, Message, contract
from docs.generator.markdown import code, table

_INTRODUCTION = """Options that you omit are taken from the preset. `nst-client info` shows the defaults and the limits
of a server. The contract and the Python client use the same names. A picture or a mask is an encoded file. In Python it
may also be a path, and on the command line it is one. The contract prefixes a value with the name of its enum:
`PRESET_BALANCED` stands for `balanced`.
"""

_NOT_OPTIONS = frozenset({"request_id", "disconnect_policy", "options", "output"})
"""Fields of `StylizeRequest` that another section describes."""

_WITH_ENUMS = ("TransferOptions", "OutputOptions", "StylizeRequest")
"""Messages whose options may have named values."""


def body() -> str:
    """Return the page."""
    source = contract()
    options = (field for name in _WITH_ENUMS for field in source.messages[name].fields)
    enums = [option.type for option in options if option.type in source.enums]
    return "\n".join(
        [
            _INTRODUCTION,
            "## Pictures\n",
            _fields(source, "StylizeRequest", ""),
            "## Styles\n",
            _fields(source, "Style", "styles[0]."),
            "## Transfer options\n",
            source.prose(source.messages["TransferOptions"].text) + "\n",
            _fields(source, "TransferOptions", "options."),
            "## Presets\n",
            "Every other option has the same default in all presets.\n",
            _presets(),
            "## Output options\n",
            _fields(source, "OutputOptions", "output."),
            "## Layers\n",
            _fields(source, "LayerWeight", ""),
            "## The job\n",
            _fields(source, "StylizeRequest", "", "request_id", "disconnect_policy"),
            "## Values\n",
            *(_enum(source, name) for name in enums),
        ]
    )


def _fields(source: Contract, name: str, path: str, *only: str) -> str:
    message: Message = source.messages[name]
    fields = [field for field in message.fields if (field.name in only if only else field.name not in _NOT_OPTIONS)]
    rows = [
        (
            f"`{field.name}`\n{_flag(path + field.name)}",
            source.cell(field.text),
            _range(source, field),
            source.cell(_default(field)),
        )
        for field in fields
    ]
    return table(("option, flag", "explanation", "range", "default"), rows)


def _default(field: Field) -> str:
    return field.default or field.need.lower()


def _range(source: Contract, field: Field) -> str:
    kind = field.type.removeprefix("repeated ")
    if field.range:
        return source.cell(field.range)
    if kind in source.enums:
        return f"[{kind}](#{kind.lower()})"
    if kind == "LayerWeight":
        return "[layers](#layers)"
    return "true, false" if kind == "bool" else ""


def _flag(path: str) -> str:
    """Return the flag of `nst-client stylize` that sets a field; empty if there is none."""
    flag = flag_of(path).removesuffix(" 1")
    for parameter in stylize.params:
        if isinstance(parameter, click.Option) and flag in parameter.opts:
            return ", ".join(map(code, (*parameter.opts, *parameter.secondary_opts)))
        if isinstance(parameter, click.Argument) and flag == parameter.human_readable_name.removesuffix("..."):
            return code(flag)
    return ""


def _presets() -> str:
    presets = {preset: TransferOptions.from_preset(preset) for preset in Preset}
    rows = [
        (code(name), *map(_value, values))
        for name in TransferOptions.__slots__
        if name != "preset"
        for values in [[getattr(options, name) for options in presets.values()]]
        if any(value != values[0] for value in values)
    ]
    return table(("option", *map(code, presets)), rows)


def _value(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case float():
            return f"{value:g}"
        case tuple():
            return ", ".join(map(str, value))
        case _:
            return str(value)


def _enum(source: Contract, name: str) -> str:
    enum = source.enums[name]
    rows = [(code(value.name), source.cell(value.text)) for value in enum.values]
    return f"### {name}\n\n{source.prose(enum.text)}\n\n" + table(("value", "meaning"), rows)
