"""Fits that take their steps as one: featurizers that are alike are evaluated, decomposed and
stepped together, with a first dimension of fits.

Invariants: the optimizers treat each number by itself, so that a step of a stack is the step of
each of its fits; a fit's featurizer is a view of the stack's, its moments are taken out with
`release`.
"""

from collections.abc import Collection, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from raysearch.core.fit_keys import FitKeys
from raysearch.engine.featurizers.stack import are_alike, stack_featurizers
from raysearch.engine.training.checkpoint import Checkpoint
from raysearch.engine.training.fit_state import FitState
from raysearch.engine.training.optimizer import optimizer_of, set_rates


class FitStack:
    """Fits whose featurizers are trained as one. `fits`: by their index among the requests, of one
    batch size and answer length."""

    def __init__(self, fits: Mapping[int, FitState], recipe: FitKeys) -> None:
        self.fits = dict(fits)
        first = next(iter(fits.values()))
        self.width = first.unit.width
        self.tokens: int = first.answers.rows.shape[1]
        self.batch = first.batch(recipe.batch)
        checkpoints = [fit.checkpoint for fit in fits.values()]
        self._is_stack = checkpoints[0].featurizer.stacks
        self.featurizer = (
            stack_featurizers([checkpoint.featurizer for checkpoint in checkpoints])
            if self._is_stack
            else checkpoints[0].featurizer
        )
        self._optimizer = optimizer_of(recipe, self.featurizer)
        if checkpoints[0].moments:
            moments = _stacked_moments(checkpoints) if self._is_stack else checkpoints[0].moments
            state = {**self._optimizer.state_dict(), "state": moments}
            self._optimizer.load_state_dict(state)

    @property
    def vectors(self) -> int:
        """The number of vectors of a step."""
        return len(self.fits) * self.batch

    @property
    def slots(self) -> int:
        """The number of slots of a step, see `schedule`."""
        return self.vectors * self.tokens

    def interchange(
        self,
        base: Float[Tensor, "vector width"],
        source: Float[Tensor, "vector width"],
        progress: float,
    ) -> Float[Tensor, "fit pair width"]:
        """Returns the vectors to write in a step, with gradients. `progress`: as in
        `Featurizer.anneal`."""
        self.featurizer.anneal(progress)
        if not self._is_stack:
            return self.featurizer.interchange(base, source)[None]
        shape = len(self.fits), self.batch, self.width
        return self.featurizer.interchange(base.view(shape), source.view(shape))

    def backward(
        self, vectors: Float[Tensor, "fit pair width"], gradient: Float[Tensor, "slot width"]
    ) -> None:
        """Computes the gradients of the parameters, given those of the losses by the vectors."""
        by_token = gradient.view(*vectors.shape[:2], self.tokens, self.width)
        by_vector = (by_token[:, :, 0] if self.tokens == 1 else by_token.sum(2)) / self.batch
        penalty = self.featurizer.penalty()
        if penalty.requires_grad:
            torch.autograd.backward([vectors, penalty], [by_vector, torch.ones_like(penalty)])
        else:
            torch.autograd.backward([vectors], [by_vector])

    def mean(self, losses: Float[Tensor, "slot"]) -> Float[Tensor, "fit"]:
        """Returns the mean loss of each fit over its pairs."""
        return losses.view(len(self.fits), -1).sum(1) / self.batch

    def take_step(self, factor: float) -> Float[Tensor, "fit"]:
        """Takes one optimizer step. Returns for each fit a number that is finite if all of its
        parameters are."""
        set_rates(self._optimizer, factor)
        self._optimizer.step()
        self._optimizer.zero_grad()
        parameters = [p.detach().view(len(self.fits), -1) for p in self.featurizer.parameters()]
        return torch.cat(parameters, 1).abs().amax(1)

    def release(self) -> None:
        """Gives each fit its moments."""
        state = self._optimizer.state_dict()["state"]
        for at, fit in enumerate(self.fits.values()):
            fit.checkpoint.moments = {
                number: {
                    name: t[at] if self._is_stack and name != "step" else t.clone()
                    for name, t in moments.items()
                    if isinstance(t, Tensor)
                }
                for number, moments in state.items()
            }


def stacks_of(
    fits: Mapping[int, FitState], recipe: FitKeys, apart: Collection[int]
) -> list[FitStack]:
    """Returns the fits in as few stacks as there are kinds and shapes of featurizers, in the order
    of their widths; those `apart` by themselves."""
    groups: list[dict[int, FitState]] = []
    for at, fit in sorted(fits.items(), key=lambda one: one[1].unit.width):
        group = next(
            (g for g in groups if at not in apart and _fits_in(fit, g, apart, recipe)), None
        )
        if group is None:
            groups.append({at: fit})
        else:
            group[at] = fit
    return [FitStack(group, recipe) for group in groups]


def _fits_in(
    fit: FitState, group: Mapping[int, FitState], apart: Collection[int], recipe: FitKeys
) -> bool:
    at, first = next(iter(group.items()))
    return (
        at not in apart
        and fit.checkpoint.featurizer.stacks
        and fit.batch(recipe.batch) == first.batch(recipe.batch)
        and fit.answers.rows.shape[1] == first.answers.rows.shape[1]
        and fit.checkpoint.step == first.checkpoint.step
        and are_alike(fit.checkpoint.featurizer, first.checkpoint.featurizer)
    )


def _stacked_moments(checkpoints: Sequence[Checkpoint]) -> dict[int, dict[str, Tensor]]:
    first = checkpoints[0].moments
    return {
        number: {
            name: t
            if name == "step"
            else torch.stack([c.moments[number][name] for c in checkpoints])
            for name, t in moments.items()
        }
        for number, moments in first.items()
    }
