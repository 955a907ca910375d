"""What a plan says of memory and time, in words.

Invariants: an estimate is called one, and says what it is of; a measured figure says how much was
measured.
"""

from raysearch.job import Job
from raysearch.runner.memory_estimate import MemoryEstimate
from raysearch.runner.time_estimate import TimeEstimate


def memory_words(memory: MemoryEstimate, job: Job) -> list[str]:
    """Lines on a replica, a block and the search."""
    kept = (
        "resources.memory"
        if job.resources.memory != "auto"
        else "half of what is free, on a CPU 2 GiB, at most"
    )
    copies = (
        f" (of these {size(memory.copies)} float32 copies, where there is room)"
        if memory.copies
        else ""
    )
    training = "; training comes on top" if job.space.is_fitted else ""
    return [
        "memory, estimated by formula (raysearch/runner/memory_estimate.py)",
        f"  replica     {size(memory.replica)}: weights {size(memory.weights)}{copies}, "
        f"{size(memory.kept)} of runs kept ({kept}), "
        f"a batch of {job.resources.rows} rows {size(memory.batch)}, libraries{training}",
        f"  block       {size(memory.block)}: {memory.inputs_of_block} inputs of its largest "
        f"block, at most {size(memory.run)} each; "
        f"{size(memory.inputs)} would hold all inputs",
        f"  search      {size(memory.driver)} of the driver",
    ]


def calibration_words(found: TimeEstimate | None, job: Job, mixed: float) -> list[str]:
    """Lines on what was measured, or how it would be. `mixed`: seconds where one site in ten is
    true."""
    if found is None:
        return ["", "how long it takes: --calibrate measures a few tasks on this machine"]
    replicas = job.resources.replicas
    many = (
        "one replica (as many as there is room for are started)"
        if replicas == "auto"
        else f"replicas: {replicas}"
    )
    trained = (
        f", a step of one seed {duration(found.a_step)} ({found.steps} timed)"
        if found.steps
        else ""
    )
    gpu = f" and {size(found.gpu)} of its GPU" if found.gpu else ""
    return [
        "",
        f"measured here, on one replica ({found.device}, {found.path}), while nothing else was "
        f"asked of it",
        f"  load        {duration(found.load)}, with the check of its paths",
        f"  took        an input {duration(found.an_input)} ({found.inputs} timed), a row (a pair "
        f"under an intervention) "
        f"{duration(found.a_row)} ({found.rows} timed){trained}",
        f"  memory      {size(found.process)} of the process{gpu} in the end",
        f"The last column reckons from that for {many}: screening, training (no seed dropped), "
        f"rows until the verdict, the holdout of "
        "what is accepted; not Ray's start, nor pictures and the tracker at the end.",
        f"where one site in ten is true (IIA 0.95) and the others are not (0.1): about "
        f"{duration(mixed)}",
    ]


def size(amount: int) -> str:
    """Of bytes: 0.53 GiB, 12 MiB, 4 KiB."""
    if amount >= 2**28:
        return f"{amount / 2**30:.2f} GiB"
    return f"{amount / 2**20:.3g} MiB" if amount >= 2**19 else f"{amount / 2**10:.3g} KiB"


def duration(seconds: float) -> str:
    """Of seconds: 3.4 ms, 51 s, 12 min, 3.2 h."""
    if seconds < 1:
        return f"{seconds * 1e3:.{0 if seconds > 0.01 else 2}f} ms"
    if seconds < 120:
        return f"{seconds:.{0 if seconds > 10 else 1}f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
