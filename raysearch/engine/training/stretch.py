"""Steps of many fits between two looks at what they found.

Invariants: within a step nothing waits for the device and nothing is done for each row or pair;
losses, and whether parameters are finite, are read once, at the end; a stack that fails changes no
fit: its fits are tried by themselves, and one that fails by itself has failed.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from raysearch.core.fit_keys import FitKeys
from raysearch.engine.execution.usage import OnStep
from raysearch.engine.training.batches import batches_of
from raysearch.engine.training.fit_stack import FitStack, stacks_of
from raysearch.engine.training.fit_state import FitGroup
from raysearch.engine.training.step_rows import Schedule, StepRows
from raysearch.engine.training.training_rows import RowRunner
from raysearch.engine.training.unit_vectors import UnitVectors, by_width

MOST_SLOTS = 2**16
"""Slots that are scheduled at once: some 5 MB."""

Result = TypeVar("Result")


class _StackFailedError(Exception):
    """A stack failed before it took a step."""

    def __init__(self, stack: FitStack, reason: Exception) -> None:
        super().__init__()
        self.stack, self.reason = stack, reason


class TrainingStretch:
    """Steps that fits take together between two validations: those of `group` that are going, from
    `first` on, at most to `last`."""

    def __init__(
        self,
        group: FitGroup,
        recipe: FitKeys,
        runner: RowRunner,
        first: int,
        last: int,
        on_step: OnStep,
    ) -> None:
        self._group, self._recipe, self._runner = group, recipe, runner
        self._on_step = on_step
        self._stacks = stacks_of(group.going, recipe, group.apart)
        self._fits = {at: fit for stack in self._stacks for at, fit in stack.fits.items()}
        self._units = UnitVectors(fit.unit for fit in self._fits.values())
        self._steps = range(first, last)
        self._seen: list[Float[Tensor, "2 fit"]] = []

    def run(self) -> int:
        """Takes the steps, up to the first in which a fit fails; returns the step that is next."""
        faults: dict[int, Exception] = {}
        for step, rows in self._scheduled():
            try:
                faults = self.step(step, rows)
            except _StackFailedError as failed:
                if len(failed.stack.fits) == 1:
                    faults = dict.fromkeys(failed.stack.fits, failed.reason)
                else:
                    self._group.apart |= failed.stack.fits.keys()
                break
            if faults:
                break
            self._on_step(step + 1, len(self._fits), lambda: float(self._seen[-1][0].mean()))
        for stack in self._stacks:
            stack.release()
        self._group.fail(faults)
        self._read()
        return self._steps.start + len(self._seen)

    def _scheduled(self) -> Iterator[tuple[int, StepRows]]:
        """Yields the steps with their rows, which are looked up for many steps at once."""
        fits, units = self._fits.values(), self._units
        at_once = max(1, MOST_SLOTS // sum(stack.slots for stack in self._stacks))
        for first in self._steps[::at_once]:
            steps = range(first, min(first + at_once, self._steps.stop))
            chosen = (
                batches_of(fit.train, self._recipe.batch, fit.request.seed, steps) for fit in fits
            )
            of_fits = [
                fit.rows_of(pairs, units.first[id(fit.unit)])
                for fit, pairs in zip(fits, chosen, strict=True)
            ]
            schedule = Schedule(of_fits, self._runner.order, units.device)
            yield from ((step, schedule[step - first]) for step in steps)

    def step(self, step: int, rows: StepRows) -> dict[int, Exception]:
        """Takes one step; returns the fits whose rows failed in it."""
        recipe, stacks = self._recipe, self._stacks
        progress = step / max(1, recipe.steps - 1)
        both = self._units.at(rows.pairs, by_width((s.width, s.vectors) for s in stacks))
        made = self._each(lambda stack, _: stack.interchange(*next(both[stack.width]), progress))
        written = by_width((v.shape[-1], v.detach().flatten(0, 1)) for v in made)
        vectors = {width: _joined(some) for width, some in written.items()}
        losses, gradients, faults = self._runner.gradients(rows, vectors)
        sizes = by_width((stack.width, stack.slots) for stack in stacks)
        of_slots = {width: iter(torch.split(g, sizes[width])) for width, g in gradients.items()}
        self._each(lambda stack, at: stack.backward(made[at], next(of_slots[stack.width])))
        largest = [stack.take_step(recipe.factor(step)) for stack in stacks]
        of_stacks = torch.split(losses, [stack.slots for stack in stacks])
        means = [stack.mean(some) for stack, some in zip(stacks, of_stacks, strict=True)]
        self._seen.append(torch.stack((_joined(means), _joined(largest))))
        order = list(self._fits)
        return {order[at]: error for at, error in faults.items()}

    def _each(self, do: Callable[[FitStack, int], Result]) -> list[Result]:
        """Returns what is done with each stack, by its index. Raises: _StackFailedError."""
        results = []
        for at, stack in enumerate(self._stacks):
            try:
                results.append(do(stack, at))
            except Exception as error:
                raise _StackFailedError(stack, error) from error
        return results

    def _read(self) -> None:
        """Reads the results of all steps in one transfer from the device, and records them."""
        if not self._seen:
            return
        table = torch.stack(self._seen, dim=2).tolist()
        rates = [self._recipe.rate(step) for step in self._steps[: len(self._seen)]]
        for at, losses, sizes in zip(self._fits, *table, strict=True):
            if at in self._group.alive:
                try:
                    self._fits[at].record(losses, sizes, rates)
                except ArithmeticError as error:
                    self._group.fail({at: error})


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.cat(list(tensors))
