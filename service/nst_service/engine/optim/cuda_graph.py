"""Steps on a GPU as CUDA graphs: one launch starts what is hundreds of small kernels otherwise.

A graph reads and writes the same memory at every replay. What a replay has written is overwritten by the next one, so
whoever keeps a tensor takes a `stable_tensor` of it.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from nst_service.engine.objective.evaluation import Evaluation


class RecordedStep:
    """A step from one state to the next, recorded as a CUDA graph.

    Each tensor of the state gets a buffer of its own, which holds another value after every replay.
    """

    def __init__(
        self,
        step: Callable[[], None],
        tensors: Callable[[], Sequence[Tensor]],
        set_tensors: Callable[[Sequence[Tensor]], None],
    ):
        """Record a step.

        Args:
            step: takes the step, without the host reading any number of the device. It has been taken before:
                libraries choose their kernels and prepare their workspaces then, which no graph can hold.
            tensors: returns the tensors of the state, which a step replaces.
            set_tensors: replaces them by others.
        """
        buffers = [tensor.clone() for tensor in tensors()]
        set_tensors(buffers)
        self._graph = torch.cuda.CUDAGraph()
        # Other threads go on using their devices meanwhile.
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            step()
            for buffer, tensor in zip(buffers, tensors(), strict=True):
                buffer.copy_(tensor)
        set_tensors(buffers)

    def __call__(self) -> None:
        """Take the step. Does not wait for the device."""
        self._graph.replay()


def stable_tensor(tensor: Tensor) -> Tensor:
    """Return a tensor that no later step changes: a copy, or the same on a CPU, where steps are not recorded."""
    return tensor if tensor.device.type == "cpu" else tensor.clone()


def stable_evaluation(evaluation: Evaluation) -> Evaluation:
    """Return an evaluation that no later step changes: a copy, or the same on a CPU."""
    if evaluation.pixels.device.type == "cpu":
        return evaluation
    return evaluation.with_tensors([stable_tensor(tensor) for tensor in evaluation.tensors()])
