"""Compares two checkouts: the same requests with the same seeds must give the same bytes on the same machine.

    git worktree add ../before v0.1.0 && (cd ../before && python setup.py build_ext --inplace)
    python -m bench.same_bytes ../before
    python -m bench.same_bytes ../before --only balanced tiles-gram --keep results
    python -m bench.same_bytes ../before --without moments-l2 tiles-moments sliced-max-zero tiles-regions

The last line suits nst 0.1.0: L-BFGS weighs chroma apart since then, but with Gram matrices as before.

Each checkout runs its own server process and its own client; only the public surface is used. One job of each checkout
is interrupted by a SIGKILL of its server and resumed by another server; it must give the bytes of an undisturbed run.
This checkout also resumes the job that the other one's killed server left.

The whole files are compared, with the metadata in them: they hold options, weights and the installed version, and no
time, id or path. The losses, the number of iterations and the tile size that the servers report must be equal, too.
Bytes depend on the processor, so no result is stored.

Exits with 1 if anything differs.
"""

import argparse
import contextlib
import io
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from paint_style import paint
from PIL import Image, ImageDraw, ImageFilter
from skimage.data import astronaut, chelsea

from bench.checkouts import Checkout, CheckoutError, this_and
from bench.same_bytes import requests
from bench.same_bytes.names import INTERRUPTED_STORE, KILLED, TAKEN_OVER, UNDISTURBED

_RUNNER = "bench.same_bytes.runner"
_SIZE = (168, 112)
"""Width and height in pixels of the pictures in the requests."""


@dataclass(frozen=True)
class Comparison:
    """Two results that must be equal."""

    name: str
    ours: Path
    """The picture of this checkout, without the suffix."""
    theirs: Path
    """The picture that it must equal, without the suffix."""

    def difference(self) -> str:
        """Return how the results differ; an empty string if they are equal."""
        ours, theirs = _picture(self.ours), _picture(self.theirs)
        said, said_before = (json.loads(path.with_suffix(".json").read_text()) for path in (ours, theirs))
        if ours.read_bytes() != theirs.read_bytes():
            return _pixel_difference(ours, theirs)
        fields = [name for name in said.keys() & said_before.keys() if said[name] != said_before[name]]
        return f"same file, but not the same {', '.join(sorted(fields))}" if fields else ""


def main() -> int:
    """Compare as the arguments say and return the exit code."""
    args = _parser().parse_args()
    names = [name for name in args.only or _names() if name not in args.without]
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        folder = args.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        try:
            ours, theirs = this_and(args.other)
            comparisons = list(_compare(ours, theirs, folder, names))
        except CheckoutError as error:
            print(error, file=sys.stderr)
            return 1
        differences = [_show(comparison) for comparison in comparisons]
    kernel = "with" if ours.has_native_kernel() else "without"
    seconds = time.monotonic() - started
    print(f"{len(comparisons)} comparisons {kernel} the native kernel, {sum(differences)} differ, {seconds:.0f} s")
    return 1 if any(differences) else 0


def _names() -> list[str]:
    nowhere = Path()
    return [*requests.whole(nowhere), *requests.tiled(nowhere), KILLED]


def _compare(ours: Checkout, theirs: Checkout, folder: Path, names: Sequence[str]) -> Iterator[Comparison]:
    """Run everything and yield what must be equal."""
    pictures = folder / "pictures"
    _make_pictures(pictures)
    outputs = {checkout: folder / checkout.name for checkout in (ours, theirs)}
    with contextlib.ExitStack() as stack:
        runners = []
        for checkout, output in outputs.items():
            output.mkdir(parents=True)
            arguments = ["run", str(pictures), str(output), *names]
            runners.append(checkout.start(_RUNNER, arguments, output / "log.txt"))
            stack.callback(runners[-1].interrupt)
        for runner in runners:
            runner.finish()
    for name in names:
        if name != KILLED:
            yield Comparison(name, outputs[ours] / name, outputs[theirs] / name)
    if KILLED in names:
        store = outputs[theirs] / INTERRUPTED_STORE
        ours.start(_RUNNER, ["resume", str(outputs[ours]), str(store), TAKEN_OVER], folder / "log.txt").finish()
        for name in (UNDISTURBED, KILLED):
            yield Comparison(name, outputs[ours] / name, outputs[theirs] / name)
        for name in (KILLED, TAKEN_OVER):
            yield Comparison(f"{name}, undisturbed", outputs[ours] / name, outputs[ours] / UNDISTURBED)


def _show(comparison: Comparison) -> bool:
    """Print the row of a comparison and return whether the results differ."""
    difference = comparison.difference()
    size = _picture(comparison.ours).stat().st_size
    print(f"{comparison.name:<32}{size:>9} bytes   {difference or 'same'}")
    return bool(difference)


def _picture(path: Path) -> Path:
    """Return the file of a picture whose suffix is not known."""
    return next(found for found in path.parent.glob(f"{path.name}.*") if found.suffix != ".json")


def _pixel_difference(ours: Path, theirs: Path) -> str:
    try:
        pixels, before = (np.asarray(Image.open(path), dtype=np.int64) for path in (ours, theirs))
    except (OSError, ValueError):
        return "differs"
    if pixels.shape != before.shape:
        return f"differs: shape {pixels.shape}, was {before.shape}"
    distance = np.abs(pixels - before)
    if not distance.any():
        return "differs: the pixels are equal, the rest of the file is not"
    return f"differs: {np.count_nonzero(distance)} of {distance.size} values, by up to {distance.max()}"


def _make_pictures(folder: Path) -> None:
    """Write the pictures that the requests name."""
    folder.mkdir(parents=True)
    width, height = _SIZE
    photograph = Image.fromarray(chelsea()).resize(_SIZE, Image.Resampling.LANCZOS)
    photograph.save(folder / "photograph.png")
    photograph.crop((0, 40, width, 40 + width // 8)).save(folder / "panorama.png")
    Image.fromarray(astronaut()).resize((140, 140), Image.Resampling.LANCZOS).save(folder / "portrait.jpg")
    paint(width, height, seed=7).save(folder / "painting.png")
    paint(height, width, seed=8).save(folder / "night.png")
    for name, box in {
        "left": (0, 0, width // 2, height),
        "right": (width // 2, 0, width, height),
        "middle": (width // 4, height // 4, 3 * width // 4, 3 * height // 4),
    }.items():
        mask = Image.new("L", _SIZE)
        ImageDraw.Draw(mask).rectangle(box, fill=255)
        mask.filter(ImageFilter.GaussianBlur(6)).save(folder / f"{name}.png")
    transparent = photograph.resize((99, 67))
    transparent.putalpha(Image.open(io.BytesIO((folder / "middle.png").read_bytes())).resize((99, 67)))
    transparent.save(folder / "transparent.png")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.same_bytes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("other", type=Path, help="folder of the other checkout, with its native kernel built")
    parser.add_argument("--only", nargs="+", choices=_names(), metavar="NAME", help=f"of {', '.join(_names())}")
    parser.add_argument("--without", nargs="+", choices=_names(), default=(), metavar="NAME", help="names to leave out")
    parser.add_argument("--keep", type=Path, help="new folder that keeps pictures, results and logs")
    return parser


if __name__ == "__main__":
    sys.exit(main())
