"""Operations on the colours of pixels: luminance and chroma, and matching the statistics of two pictures."""

import torch
from torch import Tensor

_RIDGE = 1e-5
"""Variance added to every colour, since the covariance of a grey picture is singular."""

_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))
"""The matrix from RGB to YIQ (NTSC, 1953)."""
_XYZ = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))
"""The matrix from linear sRGB to CIE XYZ with the white point D65."""
_WHITE = (0.95047, 1.0, 1.08883)
"""The white point D65 in CIE XYZ."""
_LAB_KNEE = 6 / 29
"""Cube root of the relative luminance below which CIE L*a*b* is linear."""


def luminance(pixels: Tensor) -> Tensor:
    """Return the luma (1, 1, H, W) of RGB pixels (1, 3, H, W)."""
    weights = torch.tensor(_YIQ[0], device=pixels.device).view(1, 3, 1, 1)
    return (weights * pixels).sum(1, keepdim=True)


def with_chroma_yiq(pixels: Tensor, colors: Tensor) -> Tensor:
    """Return the luma of one picture with the I and Q of another, both (1, 3, H, W) in [0, 1]; clamped to [0, 1]."""
    # Y of the one and I, Q of the other is the other, made lighter or darker by the difference of their lumas.
    return (colors + luminance(pixels) - luminance(colors)).clamp(0, 1)


def with_chroma_lab(pixels: Tensor, colors: Tensor) -> Tensor:
    """Return the CIE lightness of one picture with the a and b of another, both (1, 3, H, W); clamped to [0, 1]."""
    lab = rgb_to_lab(colors)
    lab[:, :1] = rgb_to_lab(pixels)[:, :1]
    return lab_to_rgb(lab).clamp(0, 1)


def rgb_to_lab(pixels: Tensor) -> Tensor:
    """Return CIE 1976 L*a*b* (L in [0, 100]) of sRGB pixels (1, 3, H, W) in [0, 1] (IEC 61966-2-1, CIE 15)."""
    linear = torch.where(pixels <= 0.04045, pixels / 12.92, ((pixels + 0.055) / 1.055).clamp(min=0) ** 2.4)
    relative = _mixed(linear, torch.tensor(_XYZ)) / _column(_WHITE, pixels)
    roots = torch.where(
        relative > _LAB_KNEE**3, relative.clamp(min=0) ** (1 / 3), relative / (3 * _LAB_KNEE**2) + 4 / 29
    )
    x, y, z = roots.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


def lab_to_rgb(lab: Tensor) -> Tensor:
    """Return sRGB pixels of CIE L*a*b* (1, 3, H, W): the inverse of `rgb_to_lab`, not clamped."""
    lightness, a, b = lab.unbind(1)
    y = (lightness + 16) / 116
    roots = torch.stack([y + a / 500, y, y - b / 200], 1)
    relative = torch.where(roots > _LAB_KNEE, roots**3, 3 * _LAB_KNEE**2 * (roots - 4 / 29))
    linear = _mixed(relative * _column(_WHITE, lab), torch.tensor(_XYZ).inverse())
    return torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear.clamp(min=0.0031308) ** (1 / 2.4) - 0.055)


def match_luminance(pixels: Tensor, reference: Tensor) -> Tensor:
    """Return luma (1, 1, h, w) with the mean and deviation of another (Gatys et al. 2016, "Preserving color", (10)).

    The result is clamped to [0, 1].
    """
    # Without a correction: a single pixel has a deviation, too, and it is zero.
    deviation, reference_deviation = pixels.std(correction=0), reference.std(correction=0)
    factor = reference_deviation / deviation.clamp(min=_RIDGE**0.5)
    return (factor * (pixels - pixels.mean()) + reference.mean()).clamp(0, 1)


def match_colors(pixels: Tensor, reference: Tensor) -> Tensor:
    """Return RGB pixels (1, 3, h, w) with the mean and covariance of the colours of a reference.

    The colours are mapped by the linear optimal transport between two Gaussians. The map is symmetric, so it changes
    colours the least (Pitie & Kokaram 2007, equation 8). It is regularised, so that grey pictures work. The result is
    clamped to [0, 1].
    """
    colors, reference_colors = (picture[0].flatten(1).double() for picture in (pixels, reference))
    ridge = _RIDGE * torch.eye(3, dtype=torch.float64, device=colors.device)
    covariance, reference_covariance = (torch.cov(each, correction=0) + ridge for each in (colors, reference_colors))
    root = _power(covariance, 0.5)
    inverse_root = _power(covariance, -0.5)
    transport = inverse_root @ _power(root @ reference_covariance @ root, 0.5) @ inverse_root
    transported = transport @ (colors - colors.mean(1, keepdim=True)) + reference_colors.mean(1, keepdim=True)
    return transported.clamp(0, 1).to(pixels.dtype).view_as(pixels)


def _power(symmetric: Tensor, exponent: float) -> Tensor:
    """Return a power of a symmetric matrix whose eigenvalues are not negative."""
    values, vectors = torch.linalg.eigh(symmetric)
    power: Tensor = (vectors * values.clamp(min=1e-12) ** exponent) @ vectors.T
    return power


def _mixed(pixels: Tensor, matrix: Tensor) -> Tensor:
    """Return pixels (1, 3, H, W) with each colour multiplied by a matrix (3, 3)."""
    return torch.einsum("ij,njhw->nihw", matrix.to(pixels), pixels)


def _column(values: tuple[float, ...], like: Tensor) -> Tensor:
    """Return a value for each channel, (1, 3, 1, 1), with the type and device of a tensor."""
    return torch.tensor(values).view(1, 3, 1, 1).to(like)
