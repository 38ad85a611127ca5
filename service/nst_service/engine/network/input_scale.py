"""The scales of pixels that networks were trained on."""

from enum import StrEnum

Triple = tuple[float, float, float]


class InputScale(StrEnum):
    """What a network expects its pixels to be."""

    TORCHVISION = "torchvision"
    """RGB, ImageNet mean subtracted, divided by the ImageNet deviation."""
    CAFFE = "caffe"
    """BGR, 0 to 255, mean subtracted."""

    @property
    def mean(self) -> Triple:
        """What is subtracted from RGB pixels in [0, 1]."""
        if self is InputScale.CAFFE:
            return 123.68 / 255, 116.779 / 255, 103.939 / 255
        return 0.485, 0.456, 0.406

    @property
    def std(self) -> Triple:
        """What RGB pixels in [0, 1] are divided by after that."""
        if self is InputScale.CAFFE:
            return 1 / 255, 1 / 255, 1 / 255
        return 0.229, 0.224, 0.225

    @property
    def is_bgr(self) -> bool:
        """Whether the network reads blue first."""
        return self is InputScale.CAFFE
