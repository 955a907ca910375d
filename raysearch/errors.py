"""Every exception of raysearch, in one tree; the exit code of the command line stands beside each.

    RaysearchError                 a user's mistake or the world's: one clear line, no traceback      1
    ├── JobError                   the job file, or what it names                                     2
    │   ├── NotYetError            a key or value that this version does not support                  2
    │   ├── CausalModelError       a causal model that cannot be run                                  2
    │   └── PairsError             a file or sampler of pairs                                         2
    │       └── PositionError      a named position that matches no token, or half a token            2
    ├── ModelError                 the model cannot be loaded, or lacks what the job asks             2
    ├── StoreError                 a store or folder cannot be read or written, or is not whole       2
    │   └── TakenOverError         another driver has gone on with the run: this one ends           2
    ├── ResumeError                a run that cannot be gone on with, and why                         2
    ├── SearchFailedError          the search itself cannot go on                                     1
    ├── HubError                   the Hugging Face hub is out of reach, refuses, or lacks it         4
    ├── TrackingError              the tracker is out of reach, or refuses                              4
    └── ClusterError               the cluster is out of reach, or refuses                            4
        └── ResourcesError         the cluster cannot give what the job asks in time                  5

Whatever is not a RaysearchError is our fault and is shown whole, chained.
"""

from raysearch.visible_text import visible


class RaysearchError(Exception):
    """A mistake of the user, or of the world around: its text says what was wrong, what it got and
    what would do.

    It is one line whatever was put into it, and a terminal obeys none of it (keys, file names and
    texts of users may hold anything).
    """

    exit_code = 1

    def __init__(self, text: str = "") -> None:
        super().__init__(visible(text))

    def _render_traceback_(self) -> list[str]:
        """What IPython and Jupyter show in place of a traceback: the one line. `%debug` and
        `__cause__` have the rest."""
        return [f"{type(self).__name__}: {self}"]


class JobError(RaysearchError):
    """The job file, or a file that it names, does not say something that can be done."""

    exit_code = 2


class NotYetError(JobError):
    """The job asks for something that the job format knows and this version does not support."""


class CausalModelError(JobError):
    """A causal model that cannot be run: a cycle, a missing mechanism, a value outside its domain."""


class PairsError(JobError):
    """Pairs that cannot be read, drawn or used."""


class PositionError(PairsError):
    """A named position that matches no token, or that the tokenizer cuts through."""


class ModelError(RaysearchError):
    """A model that cannot be loaded, or that lacks what the job asks of it."""

    exit_code = 2


class StoreError(RaysearchError):
    """A store or folder that cannot be read or written; a run folder or a saved intervention that
    is not whole."""

    exit_code = 2


class TakenOverError(StoreError):
    """Another driver has gone on with the run, and this one must not write to it any more."""


class ResumeError(RaysearchError):
    """A run that cannot be gone on with here."""

    exit_code = 2


class SearchFailedError(RaysearchError):
    """A search that cannot go on, because work that every hypothesis needs fails."""


class HubError(RaysearchError):
    """A hub of models that is out of reach, refuses us, or does not have what was asked."""

    exit_code = 4


class TrackingError(RaysearchError):
    """A tracker that is out of reach, or refuses us; only where it was asked for by name, a search
    never fails of it."""

    exit_code = 4


class ClusterError(RaysearchError):
    """A cluster that is out of reach, or refuses us."""

    exit_code = 4


class ResourcesError(ClusterError):
    """A cluster that cannot give the resources that the job asks, in time."""

    exit_code = 5
