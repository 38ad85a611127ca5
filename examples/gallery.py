"""Makes docs/gallery.md: a small picture for every option, made by a real server, with its command.

Run it with `python examples/gallery.py --size 256 --iterations 100`.
"""

import argparse
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from demo import SCRIPTS, server
from paint_style import paint
from PIL import Image, ImageDraw, ImageFilter
from skimage.data import astronaut, chelsea

GALLERY = Path("docs/gallery.md")
PICTURES = Path("docs/images/gallery")
INPUTS = ("cat", "astronaut", "night", "dusk", "face", "left", "right")
"""The photographs, the styles and the masks."""
QUALITY = 88


@dataclass(frozen=True)
class Entry:
    """One picture of the gallery."""

    name: str
    flags: str
    says: str
    content: str = "cat.png"
    styles: str = "night.png"


@dataclass(frozen=True)
class Chapter:
    """A group of pictures that belong together."""

    title: str
    says: str
    entries: tuple[Entry, ...]


CHAPTERS = (
    Chapter(
        "Presets",
        "Options that you omit are taken from the preset.",
        (
            Entry("balanced", "", "`balanced`, the default: means and covariances, coarse to fine."),
            Entry(
                "reference",
                "--preset reference",
                "`reference`: the objective of Gatys, Ecker & Bethge in the scaling of neural-style.",
            ),
            Entry("fast", "--preset fast --iterations 40", "`fast`, here with 40 iterations."),
            Entry(
                "texture", "--preset texture", "`texture`: the style only, from noise. The content determines the size."
            ),
            Entry("reconstruct", "--preset reconstruct", "`reconstruct`: the content only, from noise.", styles=""),
        ),
    ),
    Chapter(
        "Strength and strokes",
        "How much of a painting the result is, and the size of its strokes. Both are 0.5 by default.",
        (
            Entry("strength-0", "--strength 0", "Nearly the photograph."),
            Entry("strength-0.25", "--strength 0.25", "A tenth of the style weight."),
            Entry("strength-0.75", "--strength 0.75", "Ten times the style weight."),
            Entry("strength-1", "--strength 1", "Nearly a texture of the style."),
            Entry("fine-strokes", "--stroke-size 0", "Fine strokes: the style at half its size."),
            Entry("bold-strokes", "--stroke-size 1", "Bold strokes: the style at twice its size."),
        ),
    ),
    Chapter(
        "Weights",
        "The weights of the other losses.",
        (
            Entry(
                "tv-weight-30",
                "--tv-weight 30",
                "Thirty times the default weight of the total variation: flat and soft.",
            ),
            Entry("laplacian", "--laplacian-weight 0.001", "The Laplacian loss keeps the contours of the photograph."),
        ),
    ),
    Chapter(
        "Style loss",
        "The statistic that is matched at each style layer. By default it is the means and covariances.",
        (
            Entry("gram", "--style-loss gram", "Gram matrices."),
            Entry("sliced", "--style-loss sliced_wasserstein", "Distributions of projections on 32 directions."),
        ),
    ),
    Chapter(
        "Layers",
        "Any convolution or ReLU of VGG-19, each with a weight.",
        (
            Entry("shallow-style", "--style-layer relu1_1 --style-layer relu2_1", "Shallow style: colours and grain."),
            Entry("deep-style", "--style-layer relu4_1 --style-layer relu5_1", "Deep style: shapes without colours."),
            Entry("shallow-content", "--content-layer conv2_2", "Shallow content: more of the photograph remains."),
        ),
    ),
    Chapter(
        "Several styles",
        "",
        (
            Entry("second-style", "", "The second style alone.", styles="dusk.png"),
            Entry(
                "blend", "--style-blend 1 --style-blend 1", "Both styles in equal parts.", styles="night.png dusk.png"
            ),
        ),
    ),
    Chapter(
        "Masks",
        "A mask is a picture. White marks where it applies, and grey is a soft edge.",
        (
            Entry("mask", "--mask face.png", "The face remains as photographed.", content="astronaut.png"),
            Entry(
                "two-regions",
                "--style-mask left.png --style-mask right.png",
                "One style on the left, the other on the right.",
                content="astronaut.png",
                styles="night.png dusk.png",
            ),
        ),
    ),
    Chapter(
        "Colour",
        "Four ways to keep the colours of the content.",
        (
            Entry("color-style", "", "`style`, the default, for comparison.", content="astronaut.png"),
            Entry(
                "color-match",
                "--color match",
                "The style gets the colours of the content before it is used.",
                content="astronaut.png",
            ),
            Entry(
                "color-luminance",
                "--color luminance",
                "Only the luminance of the style is transferred.",
                content="astronaut.png",
            ),
            Entry("color-yiq", "--color yiq", "The result gets I and Q of the content.", content="astronaut.png"),
            Entry("color-lab", "--color lab", "The result gets a* and b* of the content.", content="astronaut.png"),
        ),
    ),
    Chapter(
        "Network",
        "",
        (
            Entry("pooling-average", "--pooling average", "Average pooling: softer edges, less grain."),
            Entry("pooling-l2", "--pooling l2", "L2 pooling: between max and average pooling."),
            Entry("padding-zero", "--padding zero", "Zero padding: the network sees a frame around the picture."),
            Entry(
                "raw",
                "--style-loss gram --no-normalize --style-weight 100 --content-weight 5 --tv-weight 0.001",
                "Gram matrices of features that are not normalised.",
            ),
        ),
    ),
    Chapter(
        "Optimisation",
        "",
        (
            Entry("one-scale", "--scales 1", "One scale: only small strokes form, and it takes longer."),
            Entry("adam", "--optimizer adam --averaging 0.9", "Adam, with the moving average of its iterates."),
            Entry("history", "--lbfgs-history 2", "L-BFGS with a history of two steps."),
            Entry(
                "learning-rate",
                "--optimizer adam --learning-rate 0.005",
                "Adam with a quarter of its default learning rate.",
            ),
            Entry("random", "--init random --seed 3", "Start from noise."),
            Entry("init-style", "--init style", "Start from the style."),
            Entry("init-picture", "--init-picture dusk.png", "Start from another picture."),
            Entry("time-budget", "--time-budget 10", "Ten seconds of optimisation."),
            Entry(
                "min-improvement",
                "--min-improvement 0.1",
                "Ends when ten iterations lower the loss by less than a tenth.",
            ),
        ),
    ),
)


def main() -> None:
    """Make every picture and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256, help="longest edge of the pictures in pixels")
    parser.add_argument("--iterations", type=int, default=100, help="default number of iterations")
    parser.add_argument("--only", nargs="*", help="names of the pictures to make; all if omitted")
    args = parser.parse_args()
    PICTURES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        make_inputs(work, args.size)
        for name in INPUTS:
            with Image.open(work / f"{name}.png") as picture:
                picture.convert("RGB").save(PICTURES / f"{name}.jpg", quality=QUALITY)
        with server(work / "server.log") as target:
            for entry in (entry for chapter in CHAPTERS for entry in chapter.entries):
                if args.only is None or entry.name in args.only:
                    make(entry, work, target, args.size, args.iterations)
    GALLERY.write_text(page(args.size, args.iterations))


def make_inputs(folder: Path, size: int) -> None:
    """Save the photographs, the styles and the masks."""
    for name, pixels in (("cat", chelsea()), ("astronaut", astronaut())):
        photograph = Image.fromarray(pixels)
        photograph.thumbnail((size, size), Image.Resampling.LANCZOS)
        photograph.save(folder / f"{name}.png")
    night = paint()
    night.thumbnail((size, size), Image.Resampling.LANCZOS)
    night.save(folder / "night.png")
    Image.merge("RGB", night.split()[::-1]).save(folder / "dusk.png")
    face = Image.new("L", (size, size), 255)
    ImageDraw.Draw(face).ellipse([round(share * size) for share in (0.29, 0.05, 0.58, 0.46)], fill=0)
    face.filter(ImageFilter.GaussianBlur(size / 40)).save(folder / "face.png")
    ramp = np.clip(np.linspace(-3, 4, size), 0, 1)
    left = Image.fromarray(np.uint8(255 * np.tile(1 - ramp, (size, 1))))
    left.save(folder / "left.png")
    left.point(lambda value: 255 - value).save(folder / "right.png")


def make(entry: Entry, folder: Path, target: str, size: int, iterations: int) -> None:
    """Make one picture."""
    print(f"{entry.name} ...", flush=True)
    out = PICTURES.resolve() / f"{entry.name}.jpg"
    flags = [*common(entry, size, iterations), *entry.flags.split(), "--quality", str(QUALITY), "--no-metadata"]
    command = [str(SCRIPTS / "nst-client"), "--target", target, "stylize", entry.content, *entry.styles.split()]
    subprocess.run([*command, "-o", str(out), "--quiet", *flags], cwd=folder, check=True)


def common(entry: Entry, size: int, iterations: int) -> list[str]:
    """Return the flags that all pictures of the gallery share."""
    given = [] if "--iterations" in entry.flags else ["--iterations", str(iterations)]
    return ["--size", str(size), *given]


def page(size: int, iterations: int) -> str:
    """Return the page in Markdown."""
    lines = [
        "# Gallery",
        "",
        "A picture for every option of nst. `make gallery` makes this page and its pictures.",
        f"By default, the longest edge is {size} px and the number of iterations is {iterations}:",
        "",
        f"    nst-client stylize CONTENT STYLE -o OUT --size {size} --iterations {iterations} ...",
        "",
        f"| {' | '.join(INPUTS)} |",
        "|---" * len(INPUTS) + "|",
        f"| {' | '.join(map(picture, INPUTS))} |",
    ]
    for chapter in CHAPTERS:
        lines += ["", f"## {chapter.title}", ""]
        if chapter.says:
            lines += [chapter.says, ""]
        lines += ["| | |", "|---|---|"]
        for entry in chapter.entries:
            words = ["stylize", entry.content, entry.styles, entry.flags]
            command = " ".join(word for word in words if word)
            lines.append(f"| {picture(entry.name)} | {entry.says}<br>`{command}` |")
    return "\n".join([*lines, ""])


def picture(name: str) -> str:
    """Return a picture in Markdown."""
    return f"![{name}]({PICTURES.relative_to(GALLERY.parent)}/{name}.jpg)"


if __name__ == "__main__":
    main()
