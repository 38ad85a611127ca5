"""Runs the engine of nst without a server. Its pictures are not rounded to 8 bits."""

from pathlib import Path

import torch
from nst_service.engine.devices import available_bytes, set_up_process
from nst_service.engine.estimate import estimate
from nst_service.engine.memory.fit import Memory
from nst_service.engine.network.layers import LAYERS
from nst_service.engine.network.vgg import Vgg19
from nst_service.engine.network.weights import load_weights
from nst_service.engine.optim.transfer import optimize
from nst_service.engine.options import Limits, TransferOptions
from nst_service.engine.spec import StyleInput, TransferRequest, TransferSpec, prepare

from bench.recorder import Recorder
from bench.task import Task

LIMITS = Limits(
    max_input_pixels=10**9, max_request_pixels=10**10, max_image_size=2**16, max_iterations=10**5, max_styles=1
)


def main() -> None:
    """Run the task that the command line names."""
    task = Task.read()
    recorder = Recorder(task)
    device = torch.device("cpu")
    set_up_process([device])
    # Not by `nst_service.runtime`: the modules of the store would count as memory of the engine.
    model = Vgg19(load_weights("caffe"), device)
    spec = specification(task)
    # A server would choose the same tiles.
    for iterate in optimize(spec, model, estimate(spec.outline, Memory(available_bytes(device))).tile_size):
        recorder.begin(ago=iterate.seconds)
        recorder.evaluated(iterate.result)
    recorder.finish()


def specification(task: Task) -> TransferSpec:
    """Return the task as a specification for the engine."""
    fields = {
        "image_size": task.size,
        "iterations": task.evaluations,
        "content_weight": task.content_weight,
        "style_weight": task.style_weight,
        "tv_weight": task.tv_weight,
        **task.options,
    }
    if "scale_iterations" in fields:
        fields["scale_iterations"] = tuple(fields["scale_iterations"])
    request = TransferRequest(
        content=Path(task.content).read_bytes(),
        styles=(StyleInput(data=Path(task.style).read_bytes()),),
        options=TransferOptions(**fields),
    )
    return prepare(request, LIMITS, LAYERS)


if __name__ == "__main__":
    main()
