"""Choices between tensors by a condition on the device. The host does not wait for a GPU to know the condition."""

import torch
from torch import Tensor

from nst_service.engine.objective.evaluation import Evaluation


def select_evaluation(condition: Tensor, one: Evaluation, other: Evaluation) -> Evaluation:
    """Return one evaluation where a condition (a scalar on the device) holds, or else the other.

    On a CPU nothing is copied.
    """
    if condition.device.type == "cpu":
        return one if condition else other
    selected = [torch.where(condition, *pair) for pair in zip(one.tensors(), other.tensors(), strict=True)]
    return one.with_tensors(selected)


def replace_row(rows: Tensor, index: Tensor, row: Tensor, condition: Tensor) -> None:
    """Replace a row of a matrix in place where a condition (a scalar on the device) holds; `index` is (1,)."""
    if condition.device.type == "cpu":
        if condition:
            rows[int(index)] = row
        return
    rows.index_copy_(0, index, torch.where(condition, row, rows.index_select(0, index)))
