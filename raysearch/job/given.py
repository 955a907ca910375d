"""Objects in the place of what a job names: how a job notes that its problem, or its model, was given to `rs.run` as an object.

    <drinks>                 a problem object, by its name
    <LlamaForCausalLM>       a language model that somebody had loaded, by its class
    <Net on tensors>         a torch module on tensors

Invariants: such a note names nothing that can be found again, so whoever meets one without the object is told what to give; no path of
a file, hub id or function looks like it.
"""

import re
from typing import TYPE_CHECKING

from raysearch.errors import JobError

if TYPE_CHECKING:
    from raysearch.job.job import Job

_ON_TENSORS = " on tensors"


def note(name: str, on_tensors: bool = False) -> str:
    """How a job notes the object of this name, or class."""
    plain = re.sub(r"[<>\s]+", " ", name).strip()
    return f"<{plain}{_ON_TENSORS if on_tensors else ''}>"


def is_note(path: str) -> bool:
    """Whether it stands for an object."""
    return path.startswith("<") and path.endswith(">")


def is_note_on_tensors(path: str) -> bool:
    """Whether it stands for a module on tensors."""
    return is_note(path) and path.endswith(f"{_ON_TENSORS}>")


def refuse_notes(job: "Job", where: str, problem: bool = False, model: bool = False) -> None:
    """Raises: JobError for a note whose object is not here. `problem`, `model`: whether it is."""
    if job.problem.is_given and not problem:
        raise JobError(
            f"{where}: problem.use: {job.problem.use} is a problem that rs.run was given as an object, and no file has it; give it again, "
            "rs.run(job, problem=problem), or name my_file.py:problem"
        )
    if job.model.is_given and not model:
        raise JobError(
            f"{where}: model.path: {job.model.path} is a model that rs.run was given as an object, and no file has it; give it again, "
            "rs.run(job, model=model), or name a folder, a .gguf file or a hub id"
        )
