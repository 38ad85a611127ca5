"""The requests that both checkouts are sent, and the pictures in them.

Imports nothing but the public client, and only those of its names that nst 0.1.0 has: both checkouts read this file.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nst_client import (
    ColorMode,
    Init,
    Optimizer,
    OutputOptions,
    Padding,
    PictureFormat,
    Pooling,
    Preset,
    Style,
    StyleLoss,
    TransferOptions,
)

Request = Mapping[str, Any]
"""The arguments of `StyleTransferClient.stylize`."""

_BALANCED = MappingProxyType(
    {
        "normalize": True,
        "content_weight": 1.0,
        "style_weight": 0.5,
        "tv_weight": 1.0,
        "style_loss": StyleLoss.GRAM,
        "style_layers": MappingProxyType({f"relu{block}_1": 1.0 for block in range(1, 6)}),
        "pooling": Pooling.AVERAGE,
        "padding": Padding.REFLECT,
        "scales": 3,
    }
)
_RELEASED: Mapping[Preset, Mapping[str, Any]] = MappingProxyType(
    {
        Preset.BALANCED: _BALANCED,
        Preset.FAST: _BALANCED,
        Preset.TEXTURE: {**_BALANCED, "content_weight": 0.0},
        Preset.REFERENCE: {},
        Preset.RECONSTRUCT: {},
    }
)
"""The options of each preset of nst 0.1.0 that the preset has changed since."""

RESUMED_ITERATIONS = 120
"""Iterations of the job that a SIGKILL of its server interrupts."""

INTERRUPTED_AFTER = 0.7
"""Share of its iterations after which the job is interrupted."""

TILED_JOB_BYTES = 154 * 2**20
"""The `--max-job-bytes` of the server that works on pictures in tiles."""


def whole(pictures: Path) -> dict[str, Request]:
    """Return the requests to a server that works on pictures as a whole, by their names."""
    photograph, painting, night = (pictures / f"{name}.png" for name in ("photograph", "painting", "night"))
    left, right, middle = (pictures / f"{name}.png" for name in ("left", "right", "middle"))
    portrait, transparent = pictures / "portrait.jpg", pictures / "transparent.png"
    plain = {"content": photograph, "styles": painting}

    def preset(name: Preset, iterations: int = 12, **options: Any) -> TransferOptions:
        released = {"image_size": 112, "iterations": iterations, **_RELEASED[name]}
        return TransferOptions(preset=name, **{**released, **options})

    return {
        **{name.value: {**plain, "options": preset(name, seed=3)} for name in Preset},
        "moments-l2": {
            **plain,
            "options": preset(Preset.BALANCED, style_loss=StyleLoss.MOMENTS, pooling=Pooling.L2, style_weight=2.0),
            "output": OutputOptions(format=PictureFormat.TIFF, bits=16),
        },
        "sliced-max-zero": {
            **plain,
            "options": preset(
                Preset.BALANCED,
                style_loss=StyleLoss.SLICED_WASSERSTEIN,
                pooling=Pooling.MAX,
                padding=Padding.ZERO,
                seed=11,
            ),
            "output": OutputOptions(bits=16),
        },
        "reference-normalized": {
            **plain,
            "options": preset(Preset.REFERENCE, normalize=True, padding=Padding.REFLECT, tv_weight=0.0),
            "output": OutputOptions(format=PictureFormat.JPEG, quality=90),
        },
        "balanced-raw": {
            **plain,
            "options": preset(Preset.BALANCED, normalize=False, content_weight=5.0, style_weight=100.0),
            "output": OutputOptions(format=PictureFormat.WEBP, metadata=False),
        },
        **{
            f"color-{color.value}": {
                "content": portrait,
                "styles": night,
                "options": preset(Preset.FAST, 8, color=color, image_size=96),
                "output": OutputOptions(format=PictureFormat.TIFF),
            }
            for color in (ColorMode.MATCH, ColorMode.LUMINANCE, ColorMode.YIQ, ColorMode.LAB)
        },
        "regions": {
            "content": photograph,
            "styles": [
                Style(painting, mask=left, weight=2.0),
                Style(night, mask=right, scale=1.5),
                Style(portrait, scale=0.75, weight=0.5),
            ],
            "content_mask": middle,
            "options": preset(Preset.BALANCED, image_size=120),
        },
        "adam-averaged": {
            **plain,
            "options": preset(
                Preset.REFERENCE, 15, optimizer=Optimizer.ADAM, learning_rate=0.03, averaging=0.9, pooling=Pooling.L2
            ),
        },
        "coarse-to-fine": {
            **plain,
            "options": preset(
                Preset.BALANCED,
                28,
                scale_iterations=(14, 10, 4),
                min_improvement=0.02,
                laplacian_weight=30.0,
                lbfgs_history=3,
                image_size=144,
            ),
        },
        "video-frame": {
            **plain,
            "init_picture": portrait,
            "reference": night,
            "reference_mask": middle,
            "options": preset(Preset.FAST, temporal_weight=20.0, init=Init.PICTURE),
        },
        "transparent-keep-size": {
            "content": transparent,
            "styles": [painting, night],
            "options": preset(Preset.FAST, image_size=0, init=Init.STYLE),
        },
        "layers": {
            **plain,
            "options": preset(
                Preset.REFERENCE,
                image_size=97,
                content_layers={"conv3_2": 0.5, "relu4_1": None},
                style_layers={"conv1_1": 2.0, "relu2_2": 1.0, "conv4_3": 0.25},
                tv_weight=0.1,
            ),
        },
    }


def tiled(pictures: Path) -> dict[str, Request]:
    """Return the requests to a server with `TILED_JOB_BYTES`, by their names. All are worked on in tiles."""
    panorama, painting = pictures / "panorama.png", pictures / "painting.png"

    def options(preset: Preset, edge: int, **others: Any) -> TransferOptions:
        released = {"image_size": edge, "iterations": 4, **_RELEASED[preset], "scales": 1}
        return TransferOptions(preset=preset, **{**released, **others})

    return {
        "tiles-gram": {"content": panorama, "styles": painting, "options": options(Preset.REFERENCE, 640)},
        "tiles-moments": {
            "content": panorama,
            "styles": painting,
            "options": options(Preset.FAST, 640, style_loss=StyleLoss.MOMENTS),
        },
        "tiles-regions": {
            "content": panorama,
            "styles": [Style(painting, mask=pictures / "left.png"), pictures / "night.png"],
            "content_mask": pictures / "middle.png",
            "options": options(Preset.FAST, 512, style_loss=StyleLoss.SLICED_WASSERSTEIN, optimizer=Optimizer.ADAM),
        },
    }


def resumed(pictures: Path) -> Request:
    """Return the request whose server is killed while it is worked on."""
    options: Mapping[str, Any] = {**_BALANCED, "scales": 2, "seed": 5, "image_size": 112}
    return MappingProxyType(
        {
            "content": pictures / "photograph.png",
            "styles": pictures / "painting.png",
            "options": TransferOptions(preset=Preset.BALANCED, iterations=RESUMED_ITERATIONS, **options),
        }
    )
