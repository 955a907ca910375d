"""How a replica works, as plain values: made once from the job's keys, read in the worker."""

from dataclasses import dataclass

from raysearch.core.fit_keys import FitKeys


@dataclass(frozen=True)
class RunnerSettings:
    """How a replica works; but for `recipe` none of it changes an output.

    `rows`: at most so many rows in a forward pass. `capture_bytes`: bytes of runs that are kept on
    the model's device (None: as many as are free there). `threads`: of torch on a CPU, a setting
    of the whole process (None: left as it is). `plain`: never batch. `recipe`: how subspaces are
    trained (None: they are not). `files`: files of sparse autoencoders, with paths as on every
    node. `scores`: numbers that are measured with each output.
    """

    rows: int = 64
    capture_bytes: int | None = None
    threads: int | None = None
    plain: bool = False
    recipe: FitKeys | None = None
    files: tuple[str, ...] = ()
    scores: tuple[str, ...] = ()


DEFAULT_SETTINGS = RunnerSettings()
