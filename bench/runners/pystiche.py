"""Runs pystiche 1.0.1 by its function `image_optimization` with its default optimiser.

Its preprocessing comes before the optimisation, as an argument of that function, and not within the network. With
pixels in 0..1 and losses of this size, the first steps of its L-BFGS leave the range of pictures, and it does not
recover. Its total variation is isotropic, unlike that of the others, and is left out.
"""

import os
from importlib import import_module

import torch

from bench.pixels import load_picture
from bench.recorder import Recorder, observe
from bench.task import STYLE_CHANNELS, Task


def main() -> None:
    """Run the task that the command line names."""
    task = Task.read()
    recorder = Recorder(task)
    # pystiche makes a folder for downloads when it is imported.
    os.environ["PYSTICHE_HOME"] = task.folder
    # torchvision 0.15 removed the tables of addresses that pystiche reads when it is imported. Nothing is downloaded.
    for module, network in (("alexnet", "alexnet"), ("vgg", "vgg19")):
        vars(import_module(f"torchvision.models.{module}"))["model_urls"] = {network: ""}
    from pystiche import enc, loss, optim  # noqa: PLC0415

    options = {"internal_preprocessing": False, "allow_inplace": True}
    encoder = enc.VGGMultiLayerEncoder("vgg19", pretrained=False, framework="caffe", **options)
    encoder.load_state_dict(torch.load(task.weights, weights_only=True), strict=False, framework="caffe")
    encoder.trim(["relu5_1"])
    preprocessing, postprocessing = enc.preprocessing("caffe"), enc.postprocessing("caffe")
    observe(recorder, postprocessing)
    content, style = load_picture(task.content), load_picture(task.style)
    criterion = loss.PerceptualLoss(
        loss.FeatureReconstructionLoss(encoder.extract_encoder("relu4_2"), score_weight=task.content_weight),
        loss.MultiLayerEncodingLoss(
            encoder,
            [f"relu{block}_1" for block in range(1, 6)],
            lambda layer, weight: loss.GramLoss(layer, score_weight=weight),
            # Its Gram matrices are divided by H W, not by C H W.
            layer_weights=[task.style_weight / channels**2 for channels in STYLE_CHANNELS],
        ),
        content_image=preprocessing(content),
        style_image=preprocessing(style),
    )
    # The gradient of the weights is not needed.
    encoder.requires_grad_(False)
    optim.image_optimization(content, criterion, num_steps=task.evaluations, preprocessor=preprocessing, quiet=True)
    recorder.finish()


if __name__ == "__main__":
    main()
