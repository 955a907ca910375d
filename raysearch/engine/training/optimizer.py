"""The optimizer of a featurizer, by a job's `fit` keys."""

import torch

from raysearch.core.fit_keys import FitKeys
from raysearch.engine.featurizers.featurizer import Featurizer


def optimizer_of(recipe: FitKeys, featurizer: Featurizer) -> torch.optim.Optimizer:
    """Returns a new optimizer of the featurizer's parameters, each number by itself; the `rate` of
    each of its groups is what `set_rates` multiplies."""
    groups = [
        {"params": parameters, "lr": rate, "rate": rate}
        for name, parameters in featurizer.parameter_groups().items()
        for rate in [recipe.boundary_learning_rate if name == "boundary" else recipe.learning_rate]
        if parameters
    ]
    match recipe.optimizer:
        case "adam":
            return torch.optim.Adam(groups, fused=True)  # else it reads the step from the device
        case "adamw":
            return torch.optim.AdamW(groups, weight_decay=recipe.weight_decay, fused=True)
        case "sgd":
            return torch.optim.SGD(groups)


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Sets the learning rates of a step."""
    for group in optimizer.param_groups:
        group["lr"] = group["rate"] * factor
