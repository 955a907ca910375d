"""The keys of a job's `fit`: how subspaces are trained. The search and the engine read them as they
are.

Invariants: what happens in a step is a function of these keys, the step, the seed and the pairs,
so that training can go on from any step.
"""

from typing import Annotated, Any

from pydantic import Field, model_validator

from raysearch.core.key_types import Amount, Count, Keys, Positive, Rate, Weight
from raysearch.core.learning_rate import schedule_factor
from raysearch.core.option_names import Loss, Optimizer, ScheduleName


class FitKeys(Keys):
    """The training of subspaces, on the fit pairs."""

    steps: Positive = Field(default=400, description="Steps of training.")
    batch: Positive = Field(default=32, description="Pairs of a step.")
    learning_rate: Amount = Field(
        default=1e-3, description="Of what is trained, the boundary of a boundless subspace aside."
    )
    boundary_learning_rate: Amount = Field(
        default=1e-2, description="Of the boundary of a boundless subspace."
    )
    optimizer: Optimizer = Field(default="adam", description="Which optimiser takes the steps.")
    weight_decay: Weight = Field(default=0.0, description="Of the optimiser.")
    schedule: ScheduleName = Field(
        default="linear",
        description="How the learning rate goes on after the warm-up: down to nothing (linear, "
        "cosine), or as it is.",
    )
    warmup: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.1, description="Share of the steps in which the learning rate rises."
    )
    loss: Loss = Field(
        default="cross_entropy", description="Of the counterfactual answer: what is made small."
    )
    validation: Rate = Field(
        default=0.2, description="Share of the fit pairs that is held back to choose by."
    )
    evaluate: Positive = Field(
        default=10, description="How often in a training the held back pairs are looked at."
    )
    patience: Count = Field(
        default=0,
        description="Looks at them without improvement before training stops; 0: it never does.",
    )
    temperature: Amount | None = Field(
        default=None,
        description="From which a boundary or mask is cooled; null: as the method's authors have "
        "it (from 50, theirs, a boundary "
        "collapses on vectors of a few dozen numbers).",
    )
    penalty: Weight | None = Field(
        default=None,
        description="Weight of the width of a boundary or mask in the loss; null: as the method's "
        "authors have it.",
    )
    seeds: Annotated[tuple[Count, ...], Field(min_length=1)] = Field(
        default=(0,), description="Attempts at each subspace; the best by validation is tested."
    )
    rungs: tuple[Positive, ...] = Field(
        default=(),
        description="Steps at each of which those that are not among the best `keep` of their "
        "variable, and match less than half of the "
        "threshold, go no further.",
    )
    keep: Rate = Field(
        default=0.5, description="Share that goes on from a rung whatever it matches."
    )
    together: Positive = Field(
        default=4,
        description="So many seeds are trained in one batch, which is part of their numbers.",
    )
    saves: Positive = Field(
        default=4,
        description="How often in a training its state is kept, so that no more is lost with a "
        "worker.",
    )
    warm_start: bool = Field(
        default=False,
        description="`das` of several sizes at one site, for one variable, are trained from the "
        "largest downwards: each begins within the "
        "next larger one of its seed, in the directions along which sources differ most from bases "
        "(at random where that one failed). "
        "Sizes then wait for each other, so that fewer fits are on the way at once, and rungs "
        "compare those that are.",
    )

    @property
    def of_a_step(self) -> dict[str, Any]:
        """The keys that say what happens in a step of training, by name: a stored state of training
        holds them."""
        return self.model_dump(exclude={"seeds", "keep", "saves", "together", "warm_start"})

    @property
    def ends(self) -> tuple[int, ...]:
        """Returns the steps at which a stretch of training ends and its state is stored."""
        saves = {self.steps * (i + 1) // self.saves for i in range(self.saves)}
        return tuple(sorted((saves | set(self.rungs) | {self.steps}) - {0}))

    def factor(self, step: int) -> float:
        """Returns what the learning rates are multiplied by in `step` (from 0)."""
        return schedule_factor(self.schedule, step, self.steps, round(self.warmup * self.steps))

    def rate(self, step: int) -> float:
        """Returns the learning rate of `step` (from 0)."""
        return self.learning_rate * self.factor(step)

    def is_validated_after(self, step: int) -> bool:
        """Says whether the validation pairs are run once `step` steps are done."""
        regular = step * self.evaluate // self.steps > (step - 1) * self.evaluate // self.steps
        return regular or step in self.rungs

    @model_validator(mode="after")
    def _in_order(self) -> "FitKeys":
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds {list(self.seeds)} hold one twice; name each once")
        if list(self.rungs) != sorted(set(self.rungs)) or any(r >= self.steps for r in self.rungs):
            raise ValueError(
                f"rungs {list(self.rungs)} must rise, and lie below steps ({self.steps})"
            )
        return self
