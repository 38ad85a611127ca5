#!/usr/bin/env bash
# Colours that PyAV converts from RGB to YUV and back become darker with every trip.
#
# Guess: a conversion between 8-bit RGB and YUV rounds to the nearest value. A flat colour is off by a level or two
# after a round trip, in either direction, and further trips change nothing more.
# What happens: with PyAV's default (bilinear, without SWS_ACCURATE_RND and SWS_FULL_CHR_H_INP), no channel of any
# colour becomes brighter and the mean falls by more than a level with each trip. SWS_ACCURATE_RND alone makes it worse.
# Bicubic with ACCURATE_RND, FULL_CHR_H_INT and FULL_CHR_H_INP rounds without bias and stays where it is. No encoder is
# involved.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
unset PYTHONPATH PYTHONHOME
python3 -m venv environment
environment/bin/pip install --quiet --no-compile --disable-pip-version-check av==18.1.0 numpy==2.4.6
cat > trips.py <<'PYTHON'
import sys

import av
import numpy as np
from av.video.reformatter import Interpolation

TRIPS = 10
EXACT = (
    Interpolation.BICUBIC
    | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
)
WAYS = {
    "default": {},
    "bilinear and accurate": {"interpolation": Interpolation.BILINEAR | Interpolation.ACCURATE_RND},
    "exact": {"interpolation": EXACT},
}
colours = np.random.default_rng(0).integers(16, 240, (200, 3)).astype(np.uint8)
pictures = np.broadcast_to(colours[:, None, None], (200, 16, 16, 3))


def changes(**options):
    """Return the mean change of each channel of each colour after each round trip, (TRIPS, 200, 3)."""
    found, current = [], pictures
    for _ in range(TRIPS):
        frames = [av.VideoFrame.from_ndarray(np.ascontiguousarray(one), format="rgb24") for one in current]
        encoded = [frame.reformat(format="yuv420p", **options) for frame in frames]
        current = np.stack([frame.reformat(format="rgb24", **options).to_ndarray() for frame in encoded])
        found.append(current.mean((1, 2)) - colours)
    return found


print("av", av.__version__, "python", sys.version.split()[0])
result = {name: changes(**options) for name, options in WAYS.items()}
for name, found in result.items():
    for trip in (1, TRIPS):
        change = found[trip - 1]
        print(f"{name}, {trip} trips: {change.mean():+.2f} levels, from {change.min():+.1f} to {change.max():+.1f}")
default, worse, exact = result.values()
drifts = default[0].max() <= 0 and default[0].mean() < -1 and default[-1].mean() < -8
stays = abs(exact[0].mean()) < 0.2 and np.array_equal(exact[0], exact[-1])
sys.exit(not (drifts and stays and worse[-1].mean() < default[-1].mean()))
PYTHON
environment/bin/python trips.py
