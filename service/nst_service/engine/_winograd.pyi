PANEL: int
"""Channels are multiples of it."""

def forward(
    x: int,
    kernel: int,
    bias: int,
    y: int,
    height: int,
    width: int,
    inputs: int,
    outputs: int,
    mirrored: bool,
    relu: bool,
    threads: int,
    /,
) -> None: ...
def backward(
    gradient: int,
    relu_output: int,
    kernel: int,
    by_input: int,
    height: int,
    width: int,
    inputs: int,
    outputs: int,
    mirrored: bool,
    threads: int,
    /,
) -> None: ...
def pool(x: int, y: int, height: int, width: int, channels: int, threads: int, /) -> None: ...
def unpool(x: int, gradient: int, by_input: int, height: int, width: int, channels: int, threads: int, /) -> None: ...
