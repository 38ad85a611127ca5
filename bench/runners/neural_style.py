"""Runs neural-style 0.5.7 by its command line.

Its preprocessing multiplies pixels by 256 instead of 255. Its weights file (see `bench.weights`) and `tv_weight`
correct that.
"""

import sys
from pathlib import Path

from bench.pixels import from_caffe_bgr
from bench.recorder import Recorder, observe
from bench.task import Task


def main() -> None:
    """Run the task that the command line names."""
    task = Task.read()
    recorder = Recorder(task)
    observe(recorder, lambda pixels: from_caffe_bgr(pixels, scale=256))
    options = {
        "content_image": task.content,
        "style_image": task.style,
        "model_file": task.weights,
        "image_size": task.size,
        "num_iterations": task.evaluations,
        "content_weight": task.content_weight,
        "style_weight": task.style_weight,
        "tv_weight": task.tv_weight * 255 / 256,
        "print_iter": 0,
        "save_iter": 0,
        "init": "image",
        "gpu": "c",
        "output_image": Path(task.folder) / "neural-style.png",
    }
    # The module reads the command line when it is imported.
    sys.argv[1:] = [*(str(part) for name, value in options.items() for part in (f"-{name}", value)), "-disable_check"]
    from neural_style.neural_style import main as neural_style  # noqa: PLC0415

    neural_style()
    recorder.finish()


if __name__ == "__main__":
    main()
