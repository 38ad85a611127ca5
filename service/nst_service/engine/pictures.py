"""Pictures: bytes to pixels and back. Hostile bytes end in a PictureError and in nothing else."""

import io
from dataclasses import dataclass
from enum import StrEnum

import torch
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError
from PIL.Image import Resampling
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.v2.functional import pil_to_tensor, to_pil_image

from nst_service.engine.errors import PictureError

Size = tuple[int, int]
"""Width and height in pixels."""

PREVIEW_MEDIA_TYPE = "image/jpeg"
_PREVIEW_QUALITY = 85

_INPUT_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF")
INPUT_MEDIA_TYPES = tuple(f"image/{name.lower()}" for name in _INPUT_FORMATS)
"""What `decode` accepts."""

_ACCEPTED = "accepted are PNG, JPEG, WebP and TIFF"
_WHITE = (255, 255, 255)


class PictureFormat(StrEnum):
    """Formats that `encode` writes."""

    PNG = "png"
    JPEG = "jpeg"
    WEBP = "webp"

    @property
    def media_type(self) -> str:
        """Such as "image/png"."""
        return f"image/{self}"

    @property
    def max_edge(self) -> int:
        """The longest edge that the format can hold, in pixels."""
        return {PictureFormat.PNG: 2**31 - 1, PictureFormat.JPEG: 65_500, PictureFormat.WEBP: 16_383}[self]


@dataclass(frozen=True, slots=True)
class Picture:
    """An upright sRGB picture with 8 bits per channel, its transparency set aside."""

    rgb: Image.Image
    """Mode RGB. White where `alpha` is 0, so that no hidden colour bleeds into what is visible."""
    alpha: Image.Image | None = None
    """Mode L, or None where the picture is opaque."""

    @classmethod
    def blank(cls, size: Size) -> "Picture":
        """Make a mid-grey picture."""
        return cls(Image.new("RGB", size, (128, 128, 128)))

    @property
    def size(self) -> Size:
        """Width and height in pixels."""
        return self.rgb.size

    @property
    def width(self) -> int:
        """In pixels."""
        return self.rgb.width

    @property
    def height(self) -> int:
        """In pixels."""
        return self.rgb.height

    def flattened(self) -> "Picture":
        """Return the picture on a white ground, opaque."""
        return self if self.alpha is None else Picture(_on_white(self.rgb, self.alpha))

    def resized(self, size: Size) -> "Picture":
        """Return the picture at another size, resampled by Lanczos' filter."""
        if size == self.size:
            return self
        if self.alpha is None:
            return Picture(_resampled(self.rgb, size))
        # Pillow weighs the colours of an RGBA picture by their alpha.
        rgba = self.rgb.copy()
        rgba.putalpha(self.alpha)
        return _set_aside(_resampled(rgba, size))

    def to_tensor(self) -> Tensor:
        """Return the colours, (1, 3, H, W) float32 in [0, 1]."""
        pixels: Tensor = pil_to_tensor(self.rgb)
        return pixels.unsqueeze(0).to(torch.float32) / 255


@dataclass(frozen=True, slots=True)
class EncodedPreview:
    """A small JPEG."""

    data: bytes
    width: int
    height: int


def fit(size: Size, longest_edge: int) -> Size:
    """Return the size with this longest edge and the same shape, nowhere below one pixel; 0 keeps the size."""
    if longest_edge == 0:
        return size
    factor = longest_edge / max(size)
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def decode(data: bytes, *, max_pixels: int) -> Picture:
    """Decode a PNG, JPEG, WebP or TIFF: upright by its EXIF orientation, in sRGB by its ICC profile.

    Args:
        data: the whole file; of a sequence the first frame is used.
        max_pixels: width times height beyond which it is refused, before any pixel is decoded.

    Raises:
        PictureError: empty, of another format, damaged, truncated, or too large.
    """
    if not data:
        raise PictureError(f"is empty, {_ACCEPTED}")
    try:
        with Image.open(io.BytesIO(data), formats=_INPUT_FORMATS) as image:
            _check_size(image.size, max_pixels)
            image.load()
            return _normalised(image)
    except PictureError:
        raise
    except UnidentifiedImageError as error:
        raise PictureError(f"is no picture that can be read, {_ACCEPTED}") from error
    except Image.DecompressionBombError as error:
        raise PictureError(f"has far too many pixels, this server accepts at most {max_pixels}") from error
    except Exception as error:  # Pillow's decoders raise almost anything on hostile bytes.
        raise PictureError("is damaged or truncated") from error


def encode(pixels: Tensor, *, format: PictureFormat, quality: int, alpha: Image.Image | None = None) -> bytes:  # noqa: A002
    """Encode pixels with 8 bits per channel. The same pixels give the same bytes.

    Args:
        pixels: (1, 3, H, W) float; clamped to [0, 1].
        format: of the file.
        quality: of JPEG and WebP, 1 to 100.
        alpha: transparency of the same size, mode L: kept in PNG and WebP, flattened on white in JPEG.
    """
    image = _to_image(pixels)
    if alpha is not None and format is not PictureFormat.JPEG:
        image.putalpha(alpha)
    buffer = io.BytesIO()
    match format:
        case PictureFormat.PNG:
            image.save(buffer, "PNG")
        case PictureFormat.JPEG:
            flat = image if alpha is None else _on_white(image, alpha)
            flat.save(buffer, "JPEG", quality=quality, subsampling=0 if quality >= 90 else 2, optimize=True)
        case PictureFormat.WEBP:
            image.save(buffer, "WEBP", quality=quality)
    return buffer.getvalue()


def preview(pixels: Tensor, *, longest_edge: int) -> EncodedPreview:
    """Encode pixels (1, 3, H, W) as a JPEG with at most this longest edge; smaller pictures are not enlarged."""
    height, width = pixels.shape[-2:]
    if max(width, height) > longest_edge:
        width, height = fit((width, height), longest_edge)
        pixels = functional.interpolate(pixels.clamp(0, 1), (height, width), mode="bilinear", antialias=True)
    buffer = io.BytesIO()
    _to_image(pixels).save(buffer, "JPEG", quality=_PREVIEW_QUALITY)
    return EncodedPreview(buffer.getvalue(), width, height)


def _check_size(size: Size, max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise PictureError(
            f"has {width}x{height} px, {width * height} in all, this server accepts at most {max_pixels}"
        )


def _normalised(image: Image.Image) -> Picture:
    profile = image.info.get("icc_profile")
    colour, alpha = _split(_upright(image))
    rgb = _to_srgb(colour, profile)
    if alpha is None:
        return Picture(rgb)
    rgb.putalpha(alpha)
    return _set_aside(rgb)


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # Damaged EXIF data are no reason to refuse a good picture.
        return image


def _split(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Return the colours, in a mode that colour management knows, and the transparency."""
    if image.mode.startswith("I"):
        return _to_8_bits(image), None
    if image.mode == "F":
        raise PictureError("has floating-point pixels, accepted are 8 or 16 bits per channel")
    if image.mode == "LA":
        return image.getchannel("L"), image.getchannel("A")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return rgba.convert("RGB"), rgba.getchannel("A")
    if image.mode in ("L", "RGB", "CMYK", "LAB"):
        return image, None
    return image.convert("L" if image.mode == "1" else "RGB"), None


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey, 0 to 65535, to mode L."""
    return image.convert("I").point(lambda value: value * (1 / 257) + 0.5).convert("L")


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert a picture in mode L, RGB, CMYK or LAB to RGB."""
    srgb = ImageCms.createProfile("sRGB")
    if image.mode == "LAB":
        source = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    elif not profile:
        return image.convert("RGB")
    else:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        except (OSError, ImageCms.PyCMSError):
            return image.convert("RGB")
    try:
        converted = ImageCms.profileToProfile(image, source, srgb, outputMode="RGB")
    except (ValueError, ImageCms.PyCMSError):  # A profile of another colour space than the pixels.
        return image.convert("RGB")
    assert converted is not None
    return converted


def _set_aside(rgba: Image.Image) -> Picture:
    """Split an RGBA picture; what is fully transparent becomes white."""
    alpha = rgba.getchannel("A")
    rgb = rgba.convert("RGB")
    lowest, _ = alpha.getextrema()
    if lowest == 255:
        return Picture(rgb)
    rgb.paste(_WHITE, mask=alpha.point(lambda value: 255 * (value == 0)))
    return Picture(rgb, alpha)


def _on_white(rgb: Image.Image, alpha: Image.Image) -> Image.Image:
    ground = Image.new("RGB", rgb.size, _WHITE)
    ground.paste(rgb, mask=alpha)
    return ground


def _resampled(image: Image.Image, size: Size) -> Image.Image:
    return image.resize(size, Resampling.LANCZOS, reducing_gap=3.0)


def _to_image(pixels: Tensor) -> Image.Image:
    image: Image.Image = to_pil_image((pixels.detach()[0].clamp(0, 1) * 255).round().to(torch.uint8).cpu())
    return image
