#!/usr/bin/env bash
# PyAV cannot write an MP4 with its index first into a buffer that can be read, written and sought.
#
# Guess: `movflags=+faststart` needs an output that can seek, since FFmpeg moves what it has written. io.BytesIO and
# tempfile.TemporaryFile can, and PyAV hands their `seek` and `read` on.
# What happens: FFmpeg opens the output a second time, by its name. PyAV takes the name from the attribute `name` of the
# object: "<none>" for a BytesIO, the number of the descriptor for a TemporaryFile. All frames are encoded first;
# closing then fails with FileNotFoundError for that name. A NamedTemporaryFile works, because its name can be opened.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
unset PYTHONPATH PYTHONHOME
python3 -m venv environment
environment/bin/pip install --quiet --no-compile --disable-pip-version-check av==18.1.0
cat > faststart.py <<'PYTHON'
import io
import sys
import tempfile

import av


def write(file, options):
    """Write a film, and return where the index and the frames stand in it, or the error."""
    try:
        with av.open(file, "w", format="mp4", options=options) as container:
            stream = container.add_stream("mpeg4", rate=10)
            stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
            for _ in range(5):
                container.mux(stream.encode(av.VideoFrame(64, 64, "yuv420p")))
            container.mux(stream.encode())
            stage = "closing"
    except OSError as error:
        return f"{type(error).__name__} {stage}"
    file.seek(0)
    data = file.read()
    return "index first" if data.index(b"moov") < data.index(b"mdat") else "index last"


print("av", av.__version__, "python", sys.version.split()[0])
FASTSTART = {"movflags": "+faststart"}
cases = {
    "BytesIO, no options": (io.BytesIO(), {}, "index last"),
    "BytesIO": (io.BytesIO(), FASTSTART, "FileNotFoundError closing"),
    "TemporaryFile": (tempfile.TemporaryFile(), FASTSTART, "FileNotFoundError closing"),
    "NamedTemporaryFile": (tempfile.NamedTemporaryFile(), FASTSTART, "index first"),
}
found = {name: write(file, options) for name, (file, options, _) in cases.items()}
for name, result in found.items():
    print(f"{name}: {result}")
sys.exit(any(found[name] != expected for name, (_, _, expected) in cases.items()))
PYTHON
environment/bin/python faststart.py
