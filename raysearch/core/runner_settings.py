"""The settings of a replica, as plain values: made once from the job's keys, and read in the
worker.
"""

from dataclasses import dataclass
from typing import Literal

from raysearch.core.fit_keys import FitKeys

MOST_ON_CPU = 2 * 2**30
"""Largest default cache on a CPU, in bytes: its memory is shared by all, and a run is quickly
computed again."""


@dataclass(frozen=True)
class RunnerSettings:
    """The settings of a replica; only `recipe` changes an output.

    Args:
        rows: most rows in a forward pass.
        tokens: most tokens that the rows of a wave compute together; "auto": as many as are
            measured to be enough; 0: as many as the rows have.
        capture_bytes: bytes of cached runs on the model's device; None: as many as are free there.
        threads: threads of torch on a CPU, for the whole process; None leaves them as they are.
        plain: never batch.
        recipe: how subspaces are trained; None if they are not.
        files: files of sparse autoencoders, with paths as on every node.
        scores: scores that are measured with each output.
        layers: layers in which interventions read and write; None: any.
    """

    rows: int = 64
    capture_bytes: int | None = None
    threads: int | None = None
    plain: bool = False
    recipe: FitKeys | None = None
    files: tuple[str, ...] = ()
    scores: tuple[str, ...] = ()
    layers: tuple[int, ...] | None = None
    tokens: int | Literal["auto"] = 0


DEFAULT_SETTINGS = RunnerSettings()
