"""The normalisation of pixels that a network was trained with: order of the channels, mean and deviation."""

from enum import StrEnum

Triple = tuple[float, float, float]
"""A number for each of red, green and blue."""


class InputScale(StrEnum):
    """The scale of pixels that a network expects."""

    TORCHVISION = "torchvision"
    """RGB in [0, 1], minus the mean of ImageNet, divided by its standard deviation."""
    CAFFE = "caffe"
    """BGR in [0, 255], minus the mean of ImageNet."""

    @property
    def mean(self) -> Triple:
        """The mean of each channel, which is subtracted from RGB pixels in [0, 1]."""
        if self is InputScale.CAFFE:
            return 123.68 / 255, 116.779 / 255, 103.939 / 255
        return 0.485, 0.456, 0.406

    @property
    def std(self) -> Triple:
        """The deviation of each channel, by which RGB pixels are divided after the mean is subtracted."""
        if self is InputScale.CAFFE:
            return 1 / 255, 1 / 255, 1 / 255
        return 0.229, 0.224, 0.225

    @property
    def is_bgr(self) -> bool:
        """Whether the network reads blue first."""
        return self is InputScale.CAFFE
