"""Judges and measures how results look.

    python -m bench.looks pairs FOLDER                     # fetches and paints pairs of pictures
python -m bench.looks measure RESULT STYLE CONTENT     # all measures of one result
python -m bench.looks sizes SMALL LARGE...             # the contrast of larger results, scaled to the small one
python -m bench.looks similarity RESULT PREVIEW...     # the structural similarity of previews to a result

The commands print to stdout.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bench import ROOT
from bench.environments import InstallationError
from bench.looks.catalogue import make_pairs
from bench.looks.files import load, measure_files, pixels, resized
from bench.looks.measures import OCTAVES, as_rows, contrast_ratios, similarity
from bench.looks.pairs import PairsError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the arguments name and return the exit code."""
    args = _parser().parse_args(arguments)
    try:
        args.run(args)
    except (OSError, InstallationError, PairsError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _pairs(args: argparse.Namespace) -> None:
    for pair in make_pairs(args.folder, args.cache, args.paintings):
        print(f"{pair.name:<28}{pair.kind:<12}{', '.join(map(str, pair.sizes))} px")
    print(f"Pairs: {args.folder / 'pairs.toml'}")


def _measure(args: argparse.Namespace) -> None:
    for name, text in as_rows(measure_files(args.result, args.style, args.content, args.style_scale)):
        print(f"{name:<34}{text}")


def _sizes(args: argparse.Namespace) -> None:
    small = load(args.small)
    print(f"{'contrast, luma / chroma':<34}" + "".join(f"{octave // 2} to {octave} px".rjust(15) for octave in OCTAVES))
    for path in args.large:
        ratios = contrast_ratios(pixels(resized(load(path), small.size)), pixels(small))
        print(f"{path.name:<34}" + "".join(f"{luma:.2f} / {chroma:.2f}".rjust(15) for luma, chroma in ratios.values()))


def _similarity(args: argparse.Namespace) -> None:
    result = load(args.result)
    for path in args.previews:
        preview = load(path)
        print(f"{path.name:<34}{similarity(pixels(preview), pixels(resized(result, preview.size))):.3f}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.looks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    pairs = commands.add_parser("pairs", help="fetch and paint pairs of pictures, and write their pairs.toml")
    pairs.add_argument("folder", type=Path)
    pairs.add_argument(
        "--paintings", type=Path, help="folder with tubingen.jpg, starry_night.jpg, the_scream.jpg and shipwreck.jpg"
    )
    pairs.add_argument("--cache", type=Path, default=ROOT / ".bench" / "looks", help="folder for packages")
    pairs.set_defaults(run=_pairs)

    one = commands.add_parser("measure", help="print all measures of one result")
    one.add_argument("result", type=Path)
    one.add_argument("style", type=Path)
    one.add_argument("content", type=Path)
    one.add_argument("--style-scale", type=float, default=1.0, help="the longest edge of the style over the content's")
    one.set_defaults(run=_measure)

    sizes = commands.add_parser("sizes", help="print the contrast of larger results, scaled to the size of a small one")
    sizes.add_argument("small", type=Path)
    sizes.add_argument("large", type=Path, nargs="+")
    sizes.set_defaults(run=_sizes)

    previews = commands.add_parser("similarity", help="print the structural similarity of previews to their result")
    previews.add_argument("result", type=Path)
    previews.add_argument("previews", type=Path, nargs="+")
    previews.set_defaults(run=_similarity)
    return parser


if __name__ == "__main__":
    sys.exit(main())
