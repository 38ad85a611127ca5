"""Finds faces with OpenCV's cascade of Haar features. Runs in an environment with OpenCV 4, which carries it.

A line of standard input is the path of a picture. The answer is a JSON list of faces, [x, y, width, height] as shares
of the longest edge.
"""

import json
import sys
from importlib import import_module
from typing import Any

_LONGEST_EDGE = 512
"""Pictures are scaled to this longest edge: the cascade was trained on faces of 20 px, and misses small ones."""
_LEAST_EDGE = 40
"""The smallest face in pixels of the scaled picture."""


def main() -> None:
    """Answer until standard input ends."""
    # The types of OpenCV 5, with which this file is checked, have no cascades.
    cv2: Any = import_module("cv2")
    cascade = cv2.CascadeClassifier(f"{cv2.data.haarcascades}haarcascade_frontalface_alt2.xml")
    for line in sys.stdin:
        path = line.rstrip("\n")
        grey = cv2.imread(path, cv2.IMREAD_GRAYSCALE)
        if grey is None:
            sys.exit(f"{path} is no picture")
        factor = _LONGEST_EDGE / max(grey.shape)
        filtered = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
        scaled = cv2.resize(grey, None, fx=factor, fy=factor, interpolation=filtered)
        faces = cascade.detectMultiScale(scaled, scaleFactor=1.05, minNeighbors=3, minSize=(_LEAST_EDGE, _LEAST_EDGE))
        print(json.dumps([[float(edge) / _LONGEST_EDGE for edge in face] for face in faces]), flush=True)


if __name__ == "__main__":
    main()
