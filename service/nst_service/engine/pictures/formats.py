"""The picture formats that are read and written."""

from nst_service.engine.choices import OutputFormat

INPUT_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF")


INPUT_MEDIA_TYPES = tuple(f"image/{name.lower()}" for name in INPUT_FORMATS)
"""What `decode` accepts."""


ACCEPTED = "accepted are PNG, JPEG, WebP and TIFF"


DEEP_FORMATS = (OutputFormat.PNG, OutputFormat.TIFF)
"""Formats that can hold 16 bits per channel."""
