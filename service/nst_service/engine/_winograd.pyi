PANEL: int
"""Channels are multiples of it."""
LARGE: int
"""Bytes from which a thing has its place in the arena."""
FEW_INPUTS: int
"""Or inputs are at most as many."""

def forward(
    x: int,
    kernel: int,
    table: int,
    bias: int,
    y: int,
    kept: int,
    height: int,
    width: int,
    first_row: int,
    end_row: int,
    inputs: int,
    outputs: int,
    mirrored: bool,
    then: int,
    scale: float,
    threads: int,
    /,
) -> None: ...
def backward(
    gradient: int,
    kept: int,
    kernel: int,
    table: int,
    by_input: int,
    height: int,
    width: int,
    first_row: int,
    end_row: int,
    inputs: int,
    outputs: int,
    mirrored: bool,
    then: int,
    scale: float,
    threads: int,
    /,
) -> None: ...
def pool(x: int, y: int, height: int, width: int, channels: int, threads: int, /) -> None: ...
def unpool(x: int, gradient: int, by_input: int, height: int, width: int, channels: int, threads: int, /) -> None: ...

class Block:
    """Memory for activations; a writable buffer."""

def take(size: int, stays: bool = False, /) -> Block | None: ...
def trim() -> None: ...
