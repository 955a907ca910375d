"""raysearch: where in this network does that variable live? Distributed alignment search with error
control.

    import raysearch as rs

- a belief and its texts: `rs.Problem`, made of an `rs.CausalModel` of `rs.Variable`s and of
  `rs.Input`s; `rs.fill`, `rs.draw_pairs`
- a model to look into: `rs.Model`, or `rs.TensorModel` for a network on tensors
- a search: `rs.plan`, `rs.run`, `rs.submit`, `rs.resume`, `rs.sync`, `rs.doctor`, `rs.Run`,
  `rs.Job`
- what is tested: `rs.Hypothesis`, `rs.Intervention`, `rs.Unit`, `rs.Site`, `rs.Subspace`
- what was found, kept: `rs.load_intervention`, `rs.save_intervention`, `rs.push_intervention`,
  `rs.load_mib`, `rs.save_mib`
- every mistake is an `rs.RaysearchError` of one line

Invariants: `import raysearch` imports nothing heavy; each public name brings its module when it is
first asked for.
"""

import sys
import warnings
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the same names as in _HOMES
    from raysearch.causal import (
        CausalModel,
        Input,
        Pair,
        Problem,
        Setting,
        Value,
        Variable,
        draw_pairs,
    )
    from raysearch.core.hypothesis import Hypothesis, Intervention, Site, Subspace, Unit
    from raysearch.engine.patching.generate import Sampling
    from raysearch.errors import RaysearchError
    from raysearch.interventions.card import Finding, ModelOrigin
    from raysearch.interventions.mib import load_mib, save_mib
    from raysearch.interventions.saved_intervention import (
        SavedIntervention,
        load_intervention,
        push_intervention,
        save_intervention,
    )
    from raysearch.job import Job
    from raysearch.notebook.commands import doctor, plan, resume, run, submit, sync
    from raysearch.notebook.model import Model
    from raysearch.notebook.run import Run
    from raysearch.notebook.tensor_model import TensorModel
    from raysearch.problems.text_template import fill

if (
    "ipykernel" in sys.modules
):  # what shows no bar in a cell has no need to be told, in that cell, that bars need ipywidgets
    warnings.filterwarnings(
        "ignore", message="IProgress not found"
    )  # of tqdm, which transformers and the hub's client import

from raysearch._version import __version__
from raysearch.old_paths import find_moved_modules
from raysearch.suggest import did_you_mean

__all__ = [
    "CausalModel",
    "Finding",
    "Hypothesis",
    "Input",
    "Intervention",
    "Job",
    "Model",
    "ModelOrigin",
    "Pair",
    "Problem",
    "RaysearchError",
    "Run",
    "Sampling",
    "SavedIntervention",
    "Setting",
    "Site",
    "Subspace",
    "TensorModel",
    "Unit",
    "Value",
    "Variable",
    "__version__",
    "doctor",
    "draw_pairs",
    "fill",
    "load_intervention",
    "load_mib",
    "plan",
    "push_intervention",
    "resume",
    "run",
    "save_intervention",
    "save_mib",
    "submit",
    "sync",
]

_HOMES = {
    "CausalModel": "raysearch.causal",
    "Finding": "raysearch.interventions.card",
    "Hypothesis": "raysearch.core.hypothesis",
    "Input": "raysearch.causal",
    "Intervention": "raysearch.core.hypothesis",
    "Job": "raysearch.job",
    "Model": "raysearch.notebook.model",
    "ModelOrigin": "raysearch.interventions.card",
    "Pair": "raysearch.causal",
    "Problem": "raysearch.causal",
    "RaysearchError": "raysearch.errors",
    "Run": "raysearch.notebook.run",
    "Sampling": "raysearch.engine.patching.generate",
    "SavedIntervention": "raysearch.interventions.saved_intervention",
    "Setting": "raysearch.causal",
    "Site": "raysearch.core.hypothesis",
    "Subspace": "raysearch.core.hypothesis",
    "TensorModel": "raysearch.notebook.tensor_model",
    "Unit": "raysearch.core.hypothesis",
    "Value": "raysearch.causal",
    "Variable": "raysearch.causal",
    "doctor": "raysearch.notebook.commands",
    "draw_pairs": "raysearch.causal",
    "fill": "raysearch.problems.text_template",
    "load_intervention": "raysearch.interventions.saved_intervention",
    "load_mib": "raysearch.interventions.mib",
    "plan": "raysearch.notebook.commands",
    "push_intervention": "raysearch.interventions.saved_intervention",
    "resume": "raysearch.notebook.commands",
    "run": "raysearch.notebook.commands",
    "save_intervention": "raysearch.interventions.saved_intervention",
    "save_mib": "raysearch.interventions.mib",
    "submit": "raysearch.notebook.commands",
    "sync": "raysearch.notebook.commands",
}
"""Public names and the modules that hold them. A new one stands here, in __all__ and above."""

if not TYPE_CHECKING:  # hidden from mypy, so that a name that is not there is an error

    def __getattr__(name):
        if name not in _HOMES:
            near = did_you_mean(name, __all__)
            hint = f"; {near.strip()}" if near else ""
            raise AttributeError(f"module 'raysearch' has no attribute {name!r}{hint}")
        value = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value  # asked for once
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})


find_moved_modules()
