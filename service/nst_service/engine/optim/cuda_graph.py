"""Steps on a GPU that one launch starts, where it is hundreds of small ones otherwise."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


class RecordedStep:
    """A step from one state to the next, recorded as a CUDA graph.

    A graph always reads and writes the same memory. So each tensor of the state gets a place of its own, which holds
    another value after every replay.
    """

    def __init__(
        self,
        step: Callable[[], None],
        state: Callable[[], Sequence[Tensor]],
        adopt: Callable[[Sequence[Tensor]], None],
    ):
        """Record a step.

        Args:
            step: takes it, without a look of the host at any number. It has been taken before: libraries choose their
                kernels and prepare their workspaces then, which no graph can hold.
            state: returns the tensors that a step replaces.
            adopt: takes tensors for those.
        """
        places = [tensor.clone() for tensor in state()]
        adopt(places)
        self._graph = torch.cuda.CUDAGraph()
        # Other threads go on using their devices meanwhile.
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            step()
            for place, tensor in zip(places, state(), strict=True):
                place.copy_(tensor)
        adopt(places)

    def __call__(self) -> None:
        """Take the step. Does not wait for the device."""
        self._graph.replay()
