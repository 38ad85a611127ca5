"""The weights of a convolution, as they are stored."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class StoredKernel(NamedTuple):
    """Weights (outputs, inputs, 3, 3), which may be stored in a quarter of the memory."""

    values: Tensor
    """float32, or uint8 where they are places in a table."""
    table: Tensor | None = None
    """(256,) float32, in which the weights are."""

    @property
    def shape(self) -> torch.Size:
        """(outputs, inputs, 3, 3)."""
        return self.values.shape

    def dense(self) -> Tensor:
        """Return the weights, float32."""
        if self.table is None:
            return self.values
        # torch would want the places in eight bytes each.
        return torch.from_numpy(np.take(self.table.numpy(), self.values.numpy()))
