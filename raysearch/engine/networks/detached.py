"""What is kept for later: made without gradients, of ordinary tensors.

Invariants: whatever mode the caller is in, tensors made within can take part in a computation that
has gradients (those of `torch.inference_mode` cannot), and none leads back to what they were made
of.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def constant() -> Iterator[None]:
    """Within (or in a function that it decorates), what is computed is a constant."""
    with torch.inference_mode(False), torch.no_grad():
        yield
