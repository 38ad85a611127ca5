import dataclasses
import io

import pytest
import torch
from nst_service.engine.choices import Padding, Pooling, StyleStatisticKind
from nst_service.engine.network.layers import LAYERS
from nst_service.engine.network.tiles import halo_of, tiles
from nst_service.engine.network.vgg import Vgg19
from nst_service.engine.objective.builder import build_canvas, build_criterion
from nst_service.engine.options import OutputOptions, TransferOptions
from nst_service.engine.spec import StyleInput, TransferRequest, TransferSpec, prepare
from PIL import Image

from tests.limits import LIMITS as SMALL_LIMITS

LIMITS = dataclasses.replace(SMALL_LIMITS, max_image_size=1024)


@pytest.mark.parametrize("size", [(300, 200), (257, 97), (64, 64)])
def test_the_cores_cover_every_feature_once(size: tuple[int, int]):
    for layer in ("relu1_1", "relu3_1", "relu5_1"):
        seen = torch.zeros(-(-size[1] >> int(layer[4]) - 1), -(-size[0] >> int(layer[4]) - 1))
        for tile in tiles(size, 64, ["relu5_1"]):
            seen[tile.core_in_picture(layer)] += 1
        assert seen.eq(1).all()


def test_the_halo_is_as_wide_as_the_deepest_layer_needs():
    assert [halo_of([f"relu{block}_1"]) for block in range(1, 6)] == [16, 16, 16, 48, 96]


def spec(size: tuple[int, int], **options) -> TransferSpec:
    def picture(seed: int, edges: tuple[int, int], mode: str = "RGB") -> bytes:
        noise = torch.rand(
            3 if mode == "RGB" else 1,
            edges[1] // 8 + 1,
            edges[0] // 8 + 1,
            generator=torch.Generator().manual_seed(seed),
        )
        image = Image.fromarray((255 * noise.permute(1, 2, 0)).byte().numpy().squeeze()).resize(edges)
        image.save(buffer := io.BytesIO(), "PNG")
        return buffer.getvalue()

    request = TransferRequest(
        content=picture(0, size),
        styles=(
            StyleInput(data=picture(1, (120, 200))),
            StyleInput(data=picture(2, (150, 90)), mask=picture(3, size, "L")),
        ),
        content_mask=picture(4, size, "L"),
        options=TransferOptions(image_size=0, **options),
        output=OutputOptions(),
    )
    return prepare(request, LIMITS, LAYERS)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"normalize": True, "padding": Padding.REFLECT, "laplacian_weight": 1.0},
        {"style_loss": StyleStatisticKind.MOMENTS, "pooling": Pooling.AVERAGE},
        {
            "style_loss": StyleStatisticKind.SLICED_WASSERSTEIN,
            "pooling": Pooling.L2,
            "content_layers": {"conv2_2": 1.0},
        },
    ],
    ids=["reference", "normalized", "moments", "sliced"],
)
def test_tiles_give_the_loss_and_the_gradient_of_the_whole(model: Vgg19, options: dict):
    wanted = spec((173, 109), **options)
    canvas = build_canvas(wanted, model.device)
    pixels = canvas.content + 0.1 * torch.randn(canvas.content.shape, generator=torch.Generator().manual_seed(5))
    whole, tiled = (build_criterion(wanted, model, canvas, tile)(pixels) for tile in (None, 96))
    assert tiled.loss == pytest.approx(whole.loss, rel=1e-4)
    assert tiled.term_values() == pytest.approx(whole.term_values(), rel=1e-3)
    # The square root of a covariance magnifies rounding where features hardly vary.
    tolerance = 1e-2 if options.get("style_loss") is StyleStatisticKind.MOMENTS else 1e-4
    assert (tiled.gradient - whole.gradient).norm() <= tolerance * whole.gradient.norm()


def test_tiles_leave_no_seam(model: Vgg19):
    wanted = dataclasses.replace(spec((128, 112)), content_mask=None)
    canvas = build_canvas(wanted, model.device)
    whole, tiled = (build_criterion(wanted, model, canvas, tile)(canvas.content) for tile in (None, 64))
    difference = (whole.gradient - tiled.gradient).abs()
    assert difference.max() <= 1e-3 * whole.gradient.abs().max()
