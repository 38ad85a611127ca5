"""The weights of a convolution as they are kept in memory: as numbers, or as 8-bit indices into a table."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class StoredKernel(NamedTuple):
    """The weights of a convolution, either as they are or as indices into a table, in a quarter of the memory."""

    values: Tensor
    """(outputs, inputs, 3, 3): float32 weights, or uint8 indices into the table."""
    table: Tensor | None = None
    """(256,) float32: the weights that the indices stand for. None where the values are the weights."""

    @property
    def shape(self) -> torch.Size:
        """The shape of the kernel: (outputs, inputs, 3, 3)."""
        return self.values.shape

    def dense(self) -> Tensor:
        """Return the weights (outputs, inputs, 3, 3), float32."""
        if self.table is None:
            return self.values
        # Indices of torch would take eight bytes each.
        return torch.from_numpy(np.take(self.table.numpy(), self.values.numpy()))
