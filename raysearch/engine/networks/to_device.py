"""Copies numbers of the host to a device without waiting for it.

A list as an index, `torch.tensor(..., device=...)` and a plain `.to(device)` make the host wait
until the device has done all it was given; none of these belongs where many rows or layers pass.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def on_device(
    numbers: Tensor | NDArray[np.integer[Any]] | Sequence[int], device: torch.device
) -> Tensor:
    """Returns numbers of the host on a device, without waiting for it."""
    if isinstance(numbers, np.ndarray):
        tensor = torch.from_numpy(numbers)
    elif isinstance(numbers, Tensor):
        tensor = numbers
    else:
        tensor = torch.tensor(list(numbers), dtype=torch.int64)
    return tensor.to(device, non_blocking=True)
