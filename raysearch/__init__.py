"""raysearch: where in this network does that variable live? Distributed alignment search with error control.

Invariants: `import raysearch` imports nothing heavy; each public name brings its module when it is first asked for.
"""

import sys
import warnings
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the same names as in _HOMES
    from raysearch.engine.card import Finding, ModelOrigin
    from raysearch.engine.generate import Sampling
    from raysearch.engine.mib import load_mib, save_mib
    from raysearch.engine.saved import SavedIntervention, load_intervention, push_intervention, save_intervention
    from raysearch.job import Job
    from raysearch.notebook.model import Model
    from raysearch.notebook.run import Run
    from raysearch.notebook.search import resume, run

if "ipykernel" in sys.modules:  # what shows no bar in a cell has no need to be told, in that cell, that bars need ipywidgets
    warnings.filterwarnings("ignore", message="IProgress not found")  # of tqdm, which transformers and the hub's client import

__version__ = "0.1.0"

__all__ = [
    "Finding",
    "Job",
    "Model",
    "ModelOrigin",
    "Run",
    "Sampling",
    "SavedIntervention",
    "__version__",
    "load_intervention",
    "load_mib",
    "push_intervention",
    "resume",
    "run",
    "save_intervention",
    "save_mib",
]

_HOMES = {
    "Finding": "raysearch.engine.card",
    "Job": "raysearch.job",
    "Model": "raysearch.notebook.model",
    "ModelOrigin": "raysearch.engine.card",
    "Run": "raysearch.notebook.run",
    "Sampling": "raysearch.engine.generate",
    "SavedIntervention": "raysearch.engine.saved",
    "load_intervention": "raysearch.engine.saved",
    "load_mib": "raysearch.engine.mib",
    "push_intervention": "raysearch.engine.saved",
    "resume": "raysearch.notebook.search",
    "run": "raysearch.notebook.search",
    "save_intervention": "raysearch.engine.saved",
    "save_mib": "raysearch.engine.mib",
}
"""Public names and the modules that hold them. A new one stands here, in __all__ and above."""

if not TYPE_CHECKING:  # hidden from mypy, so that a name that is not there is an error

    def __getattr__(name):
        if name not in _HOMES:
            raise AttributeError(f"module 'raysearch' has no attribute {name!r}")
        value = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value  # asked for once
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
