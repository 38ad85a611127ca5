"""The engine of nst alone, without a server. Prints a line after every evaluation (see `plain_loop`)."""

import argparse
from pathlib import Path

import torch
from nst_service.engine.devices import set_up_process
from nst_service.engine.layers import LAYERS
from nst_service.engine.options import Limits, TransferOptions
from nst_service.engine.spec import StyleInput, TransferRequest, prepare
from nst_service.engine.transfer import transfer
from nst_service.engine.vgg import Vgg19
from nst_service.engine.weights import load_weights

LIMITS = Limits(max_input_pixels=10**9, max_image_size=2**16, max_iterations=10**5, max_styles=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("content", type=Path)
    parser.add_argument("style", type=Path)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--iterations", type=int, required=True)
    args = parser.parse_args()
    set_up_process([torch.device("cpu")])
    model = Vgg19(load_weights("caffe"), "cpu")
    request = TransferRequest(
        content=args.content.read_bytes(),
        styles=(StyleInput(data=args.style.read_bytes()),),
        options=TransferOptions(image_size=args.size, iterations=args.iterations),
    )
    for _ in transfer(prepare(request, LIMITS, LAYERS), model):
        print("evaluation", flush=True)


if __name__ == "__main__":
    main()
