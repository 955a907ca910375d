"""What the comparisons of trained rotations with pyvene share: a recipe with a constant learning
rate, and pyvene's model around a network.
"""

import pyvene
import torch
from torch import Tensor

import raysearch as rs
from raysearch.core.fit_keys import FitKeys
from raysearch.engine.featurizers.construction import make_untrained


def constant_recipe(steps: int, batch: int, evaluate: int) -> FitKeys:
    """Returns a recipe of which each step is alike, without validation."""
    same = {"schedule": "constant", "warmup": 0.0, "validation": 0.0}
    return FitKeys().model_copy(
        update={**same, "steps": steps, "batch": batch, "evaluate": evaluate}
    )


def around(
    model: torch.nn.Module, layer: int, kind: type, **more: int
) -> tuple[pyvene.IntervenableModel, torch.nn.Module]:
    """Returns pyvene's model with one intervention on the residual, which alone is trained."""
    told = {"layer": layer, "component": "block_output", "intervention_type": kind, **more}
    intervenable = pyvene.IntervenableModel(pyvene.IntervenableConfig([told]), model)
    intervenable.set_device("cpu")
    intervenable.disable_model_gradients()
    (intervention,) = intervenable.interventions.values()
    return intervenable, intervention


def around_low_rank(
    model: torch.nn.Module, layer: int, k: int, width: int, seed: int
) -> tuple[pyvene.IntervenableModel, torch.nn.Module]:
    """Returns pyvene's model with a low-rank rotation that begins where ours does."""
    kind = pyvene.LowRankRotatedSpaceIntervention
    intervenable, intervention = around(model, layer, kind, low_rank_dimension=k)
    intervention.rotate_layer.weight = first_directions(k, width, seed)
    return intervenable, intervention


def first_directions(k: int, width: int, seed: int) -> Tensor:
    """Returns the directions with which our fit of a seed begins, of shape (width, k)."""
    begun = make_untrained(rs.Subspace("das", k), width, torch.Generator().manual_seed(seed))
    return begun.tensors()["directions"]
