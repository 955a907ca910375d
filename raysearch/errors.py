"""All exceptions of raysearch in one tree, with the exit codes of the command line.

    RaysearchError                 a user's mistake or the world's: one clear line, no traceback  1
    ├── JobError                   the job file, or what it names                                2
    │   ├── NotYetError            a key or value that this version does not support             2
    │   ├── CausalModelError       a causal model that cannot be run                             2
    │   └── PairsError             a file or sampler of pairs                                    2
    │       └── PositionError      a named position that matches no token, or half a token       2
    ├── ModelError                 the model cannot be loaded, or lacks what the job asks        2
    ├── StoreError                 a store or folder cannot be read or written, or is not whole  2
    │   └── TakenOverError         a later driver works on the run, so this one ends             2
    ├── ResumeError                a run that cannot be resumed, and why                         2
    ├── MemoryFullError            memory did not suffice; no file is to blame                   1
    ├── SearchFailedError          the search itself cannot continue                             1
    ├── HubError                   the Hugging Face hub cannot be reached, refuses, or lacks it  4
    ├── TrackingError              the tracker cannot be reached, or refuses                     4
    └── ClusterError               the cluster cannot be reached, or refuses                     4
        └── ResourcesError         the cluster cannot give what the job asks in time             5

Any other exception is a bug of raysearch, and is shown in full, with its causes.
"""

import errno

from raysearch.visible_text import visible


class RaysearchError(Exception):
    """A mistake of the user, or a failure outside raysearch: the text says what is wrong, what it
    got and what to do.

    It is one line whatever was put into it, and contains nothing that a terminal would obey (keys,
    file names and texts of users may hold anything).
    """

    exit_code = 1

    def __init__(self, text: str = "") -> None:
        super().__init__(visible(text))

    def _render_traceback_(self) -> list[str]:
        """Returns what IPython and Jupyter show in place of a traceback: the one line.

        `%debug` and `__cause__` have the rest.
        """
        return [f"{type(self).__name__}: {self}"]


class JobError(RaysearchError):
    """The job file, or a file that it names, asks for something impossible."""

    exit_code = 2


class NotYetError(JobError):
    """The job asks for something that the job format knows and this version does not support."""


class CausalModelError(JobError):
    """A causal model that cannot run: a cycle, a missing mechanism, a value outside its domain."""


class PairsError(JobError):
    """Pairs that cannot be read, drawn or used."""


class PositionError(PairsError):
    """A named position that matches no token, or that the tokenizer cuts through."""


class ModelError(RaysearchError):
    """A model that cannot be loaded, or that lacks what the job asks of it."""

    exit_code = 2


class StoreError(RaysearchError):
    """A store or folder that cannot be read or written, or a run or saved intervention with parts
    missing.
    """

    exit_code = 2


class MemoryFullError(RaysearchError):
    """Memory did not suffice; nothing is said of the file that was being read."""


class TakenOverError(StoreError):
    """A later driver works on the run, and this one must not write to it any more."""


class ResumeError(RaysearchError):
    """A run that cannot be resumed here."""

    exit_code = 2


class SearchFailedError(RaysearchError):
    """A search that cannot continue, because work that every hypothesis needs fails."""


class HubError(RaysearchError):
    """A model hub that cannot be reached, refuses access, or does not have what was asked for."""

    exit_code = 4


class TrackingError(RaysearchError):
    """A tracker cannot be reached, or refuses; raised only if it was asked for by name, never by a
    search.
    """

    exit_code = 4


class ClusterError(RaysearchError):
    """A cluster that cannot be reached, or refuses access."""

    exit_code = 4


class ResourcesError(ClusterError):
    """A cluster that cannot give the resources that the job asks for, in time."""

    exit_code = 5


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether an error says that memory is full: Python's, torch's, Arrow's or the
    system's.
    """
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    system = isinstance(error, OSError) and error.errno == errno.ENOMEM
    return named or system or "can't allocate memory" in str(error)


def check_memory(error: BaseException, doing: str) -> None:
    """Raises: MemoryFullError if `error`, which came up while `doing`, says that memory is full."""
    if is_out_of_memory(error):
        raise MemoryFullError(
            f"memory is full ({type(error).__name__}, {doing}); end what else uses it, or give "
            f"this process more: nothing is wrong with the file"
        ) from error
