"""The conversion of pictures to sRGB by their ICC profiles."""

import io

from PIL import Image, ImageCms


def to_srgb(image: Image.Image, profile: object) -> Image.Image:
    """Return a picture of mode L, RGB, CMYK or LAB in mode RGB.

    Args:
        image: picture in the colours of the file.
        profile: what the file has for an ICC profile. A damaged one, or one for another mode, is ignored.
    """
    if image.mode == "LAB":
        return _converted(image, ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")))
    if isinstance(profile, bytes):
        try:
            return _converted(image, ImageCms.ImageCmsProfile(io.BytesIO(profile)))
        except (OSError, ValueError, ImageCms.PyCMSError):
            pass
    return image.convert("RGB")


def _converted(image: Image.Image, profile: ImageCms.ImageCmsProfile) -> Image.Image:
    rgb = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert rgb is not None  # None only for a conversion in place.
    return rgb
