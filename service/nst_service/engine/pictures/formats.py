"""The table of picture file formats: what is read, what is written, and what each can hold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from nst_service.engine.choices import OutputFormat


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFormat:
    """A format of picture files."""

    name: str
    """The name as people write it."""
    pillow_name: str
    """The name of the format in Pillow."""
    media_type: str
    """The registered media type, such as "image/png"."""
    is_read: bool
    """Whether `decode` accepts it."""
    written_as: OutputFormat | None
    """The choice of an output option that `encode` writes this format for, or None for a format that is only read."""
    written_bits: tuple[int, ...] = ()
    """Bits per channel that `encode` can write."""
    has_alpha: bool
    """Whether a file can hold transparency."""
    longest_edge: int = 2**31 - 1
    """The longest edge that a file can hold, in pixels."""


FORMATS = (
    FileFormat(
        name="PNG",
        pillow_name="PNG",
        media_type="image/png",
        is_read=True,
        written_as=OutputFormat.PNG,
        written_bits=(8, 16),
        has_alpha=True,
    ),
    FileFormat(
        name="JPEG",
        pillow_name="JPEG",
        media_type="image/jpeg",
        is_read=True,
        written_as=OutputFormat.JPEG,
        written_bits=(8,),
        has_alpha=False,
        longest_edge=65_500,
    ),
    FileFormat(
        name="WebP",
        pillow_name="WEBP",
        media_type="image/webp",
        is_read=True,
        written_as=OutputFormat.WEBP,
        written_bits=(8,),
        has_alpha=True,
        longest_edge=16_383,
    ),
    FileFormat(
        name="TIFF",
        pillow_name="TIFF",
        media_type="image/tiff",
        is_read=True,
        written_as=OutputFormat.TIFF,
        written_bits=(8, 16),
        has_alpha=True,
    ),
)
"""Every known format. Everything else in this module is derived from it."""

READ_FORMATS = tuple(known for known in FORMATS if known.is_read)
"""Formats that `decode` accepts."""

INPUT_MEDIA_TYPES = tuple(known.media_type for known in READ_FORMATS)
"""Media types that `decode` accepts."""

WRITTEN_FORMATS: Mapping[OutputFormat, FileFormat] = MappingProxyType(
    {known.written_as: known for known in FORMATS if known.written_as is not None}
)
"""Formats that `encode` writes, by the choice of the output option."""


def names_of(formats: Sequence[FileFormat]) -> str:
    """Return the names of formats as an enumeration: "PNG, JPEG and WebP"."""
    *names, last = (known.name for known in formats)
    return f"{', '.join(names)} and {last}" if names else last
