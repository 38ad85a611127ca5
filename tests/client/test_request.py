import json

import pytest
from click.testing import CliRunner
from nst.v1 import style_transfer_pb2 as pb
from nst_client.cli import commands
from nst_client.errors import InvalidRequestError
from nst_client.metadata import read_metadata
from nst_client.options import ColorMode, PictureFormat, Preset

RECIPE = {
    "nst_stylize": "1.2.3",
    "weights": {"id": "caffe", "sha256": "aa"},
    "options": {
        "preset": "fast",
        "iterations": 30,
        "scales": 2,
        "scale_iterations": [20, 10],
        "style_layers": {"relu2_1": 0.5},
        "color": "lab",
        "optimizer": "adam",
        "learning_rate": 0.02,
        "seed": 7,
        "image_size": 300,
        "min_image_size": 200,
        "from_the_future": 1,
    },
    "output": {"format": "png", "quality": 90, "bits": 16},
    "styles": [{"weight": 0.25, "scale": 1.0}, {"weight": 0.75, "scale": 2.0}],
}


@pytest.fixture
def made(tmp_path):
    """A picture that says how it was made."""
    path = tmp_path / "made.png"
    path.write_bytes(b"\x89PNG tEXtnst\0" + json.dumps(RECIPE).encode() + b"\xff\xd9 IDAT")
    return path


@pytest.fixture
def sent(target, servicer, script, pictures, tmp_path):
    """Run `stylize` with two styles and return the request that the server got."""

    def sent(*arguments):
        servicer.attempts = [script.job()]
        flags = ["stylize", *pictures, "-o", tmp_path / "out.png", *arguments]
        done = CliRunner(env={"NST_TARGET": target}).invoke(commands, [str(flag) for flag in flags])
        assert done.exit_code == 0, done.output
        return servicer.requests[-1]

    return sent


def test_every_flag_reaches_the_request(sent, servicer, tmp_path):
    masks = [tmp_path / name for name in ("mask.png", "style-mask.png")]
    for mask in masks:
        mask.write_bytes(mask.name.encode())
    request = sent(
        *(
            "--preset",
            "texture",
            "--iterations",
            30,
            "--size",
            "keep",
            "--min-size",
            64,
            "--scales",
            2,
            "--scale-iterations",
            "20,10",
        ),
        *("--content-weight", 1, "--style-weight", 2, "--tv-weight", 3, "--laplacian-weight", 4),
        *("--content-layer", "relu4_2", "--style-layer", "relu1_1=0.5", "--style-loss", "moments", "--no-normalize"),
        *("--pooling", "l2", "--padding", "reflect", "--color", "luminance"),
        *("--style-blend", 1, "--style-blend", 3, "--style-scale", 1, "--style-scale", 2),
        *("--style-mask", masks[1], "--style-mask", "-", "--mask", masks[0]),
        *("--optimizer", "adam", "--learning-rate", 0.1, "--lbfgs-history", 5, "--averaging", 0.9),
        *("--min-improvement", 0.01, "--time-budget", 30, "--init", "random", "--seed", 9),
        *("--preview", tmp_path / "preview.jpg", "--preview-every", 3, "--preview-size", 32, "--timeout", 30),
        *("--format", "tiff", "--quality", 80, "--bits", 16, "--no-metadata"),
    )
    assert request.options == pb.TransferOptions(
        preset=pb.PRESET_TEXTURE,
        iterations=30,
        image_size=0,
        min_image_size=64,
        scales=2,
        scale_iterations=[20, 10],
        content_weight=1,
        style_weight=2,
        tv_weight=3,
        laplacian_weight=4,
        content_layers=[pb.LayerWeight(layer="relu4_2")],
        style_layers=[pb.LayerWeight(layer="relu1_1", weight=0.5)],
        style_loss=pb.STYLE_LOSS_MOMENTS,
        normalize=False,
        pooling=pb.POOLING_L2,
        padding=pb.PADDING_REFLECT,
        color=pb.COLOR_MODE_LUMINANCE,
        optimizer=pb.OPTIMIZER_ADAM,
        learning_rate=0.1,
        lbfgs_history=5,
        averaging=0.9,
        min_improvement=0.01,
        time_budget_seconds=30,
        init=pb.INIT_RANDOM,
        seed=9,
        preview_every=3,
        preview_size=32,
    )
    assert 0 < servicer.remaining[0] <= 31
    assert request.output == pb.OutputOptions(format=pb.PICTURE_FORMAT_TIFF, quality=80, bits=16, metadata=False)
    assert request.content_mask.data == b"mask.png"
    assert [(style.weight, style.scale, style.mask.data) for style in request.styles] == [
        (1, 1, b"style-mask.png"),
        (3, 2, b""),
    ]
    assert not request.styles[1].HasField("mask")


def test_a_picture_is_made_again_from_what_it_says(sent, made):
    request = sent("--from", made)
    assert request.options == pb.TransferOptions(
        preset=pb.PRESET_FAST,
        iterations=30,
        scales=2,
        scale_iterations=[20, 10],
        style_layers=[pb.LayerWeight(layer="relu2_1", weight=0.5)],
        color=pb.COLOR_MODE_LAB,
        optimizer=pb.OPTIMIZER_ADAM,
        learning_rate=0.02,
        seed=7,
        image_size=300,
        min_image_size=200,
    )
    assert request.output == pb.OutputOptions(format=pb.PICTURE_FORMAT_PNG, quality=90, bits=16)
    assert [(style.weight, style.scale) for style in request.styles] == [(0.25, 1), (0.75, 2)]


def test_a_flag_overrides_what_a_picture_says(sent, made):
    options = sent(*("--from", made, "--iterations", 8, "--seed", 1, "--optimizer", "lbfgs", "--size", 100)).options
    assert (options.iterations, options.seed, options.scales, options.image_size) == (8, 1, 2, 100)
    # What belonged to the number of iterations, to the optimiser and to the size is gone with them.
    assert not options.scale_iterations
    assert not options.HasField("learning_rate")
    assert not options.HasField("min_image_size")


def test_the_metadata_of_a_picture_are_typed(made):
    found = read_metadata(made)
    assert found.version == "1.2.3"
    assert found.weights.id == "caffe"
    assert (found.options.preset, found.options.color) == (Preset.FAST, ColorMode.LAB)
    assert found.output.format is PictureFormat.PNG
    assert found.style_scales == (1.0, 2.0)


@pytest.mark.parametrize(
    "data",
    [b"", b"\x89PNG", b'{"nst_stylize": "1", "options"', b'{"nst_stylize": []}', b'{"nst_stylize": "1", "options": 3}'],
)
def test_a_picture_that_does_not_say_how_it_was_made_is_refused(tmp_path, data):
    path = tmp_path / "other.png"
    path.write_bytes(data)
    with pytest.raises(InvalidRequestError, match="does not say how it was made"):
        read_metadata(path)


def test_estimate_says_what_a_stylisation_would_take(target, servicer, pictures):
    servicer.estimate = pb.EstimateResponse(
        options=pb.TransferOptions(iterations=300),
        width=4096,
        height=3072,
        estimate=pb.CostEstimate(seconds=90, queue_seconds=5, peak_memory_bytes=3 * 2**30, tile_size=512),
    )
    flags = [str(flag) for flag in ("estimate", *pictures, "--size", 4096)]
    done = CliRunner(env={"NST_TARGET": target}).invoke(commands, flags)
    assert done.stdout.splitlines() == [
        "size    4096x3072 px, in tiles of 512 px",
        "time    90 s for 300 iterations, 5 s in the queue",
        "memory  3072 MiB",
    ]
    assert servicer.requests[-1].options.image_size == 4096
    servicer.estimate.estimate.reduced_from = 8192
    reduced = CliRunner(env={"NST_TARGET": target}).invoke(commands, flags)
    assert reduced.stdout.startswith("size    4096x3072 px, reduced from 8192, in tiles of 512 px\n")
    as_json = CliRunner(env={"NST_TARGET": target}).invoke(commands, [*flags, "--json"])
    assert json.loads(as_json.stdout)["cost"]["tile_size"] == 512
