"""Tensors for later use: ordinary tensors without gradients.

Invariants: in whatever mode the caller is, tensors made within can take part in a computation with
gradients (those of `torch.inference_mode` cannot), and none refers to the graph that it was made
from.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def without_gradients() -> Iterator[None]:
    """Computes without gradients, and outside of inference mode. Works as a context manager and as
    a decorator."""
    with torch.inference_mode(False), torch.no_grad():
        yield
