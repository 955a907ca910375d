"""GPUs and memory of this machine, for checks before a search."""

import os
from pathlib import Path

import torch

from raysearch.engine.execution.memory import memory_in_use
from raysearch.errors import ModelError

ENOUGH = 0.9
"""Share of a machine's memory in use from which a check fails: Ray kills workers at 95 %, and a
replica still has to load."""
_DRIVER = Path("/dev/nvidiactl")
"""Exists if a GPU driver is installed."""


def gpus() -> str:
    """Describes torch and its GPUs. Raises: ModelError for a GPU that torch cannot use."""
    if torch.cuda.is_available():
        devices = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        named = ", ".join(f"{d.name} ({d.total_memory / 2**30:.0f} GiB)" for d in devices)
        return f"torch {torch.__version__}, {len(devices)} GPU{'s' * (len(devices) > 1)}: {named}"
    if _DRIVER.exists() and os.environ.get("CUDA_VISIBLE_DEVICES") != "":
        made_for = torch.version.cuda or "the CPU alone"
        raise ModelError(
            f"torch {torch.__version__}: a GPU is here that it cannot use (it was made for "
            f"{made_for}); install the torch of your CUDA "
            "version, and see that `nvidia-smi` works"
        )
    return f"torch {torch.__version__}, no GPU here: replicas use the CPU"


def memory() -> str:
    """Describes the use of the memory of this machine or container. Raises: ModelError if hardly
    any is left."""
    share = memory_in_use().host
    if share > ENOUGH:
        raise ModelError(
            f"{share:.0%} of the memory is in use, and Ray kills workers at 95%; end what else "
            f"runs here"
        )
    return f"{share:.0%} in use"
