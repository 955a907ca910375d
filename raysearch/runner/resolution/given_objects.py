"""Objects that the caller gives in the place of what a job names: a problem, a loaded model. This
file is light: no torch."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raysearch.causal import Problem
from raysearch.job import Job

if TYPE_CHECKING:
    from raysearch.engine.loading.factory import LoadedModule
    from raysearch.engine.loading.given_model import GivenModel
    from raysearch.engine.loading.loaded_model import LoadedModel


@dataclass(frozen=True)
class GivenObjects:
    """None: what the job names is looked for. A job notes what was given (job/placeholders.py), but
    for a model that was read from files."""

    problem: Problem | None = None
    model: "GivenModel | None" = None

    def borrowed(self) -> AbstractContextManager[None]:
        """Puts the given model into evaluation mode within the context, without gradients."""
        return nullcontext() if self.model is None else self.model.borrowed()

    def loaded(self, job: Job) -> "LoadedModel | LoadedModule":
        """Returns the model as a replica of the job takes it. Its digest is computed from its
        content where no file of the job has it."""
        assert self.model is not None
        return self.model.loaded(job.prompt_format, by_content=job.model.is_given)


NO_OBJECTS = GivenObjects()
