"""The keys of a job, room by room, `space` aside: types, ranges, defaults.

Invariants: a default stands here and nowhere else; nothing but `resources` and `name` can change without changing an answer.
"""

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Rate = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]


class Keys(BaseModel):
    """Frozen; a key that is not declared is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


_FACTORY = re.compile(r"(?P<place>.+\.py|[A-Za-z_]\w*(\.\w+)*):(?P<name>[A-Za-z_]\w*)")


class ModelKeys(Keys):
    """Which network. `path`: a local folder, a .gguf file, a hub id (then `revision` may pin it); or "module:factory" or
    "my_file.py:factory", a function that returns a torch.nn.Module on tensors.

    `device_map`: how accelerate spreads one replica over the GPUs of its actor. `trust_remote_code`: run the code that lies in the
    model's folder or repository, on the driver's machine and on every node; of a hub id only with a pinned `revision`.
    """

    path: str
    revision: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    device_map: Literal["auto", "balanced", "balanced_low_0", "sequential"] | None = None
    trust_remote_code: bool = False

    @property
    def is_factory(self) -> bool:
        """Whether a function makes the network: of its form alone, so that it is the same on every machine."""
        return _FACTORY.fullmatch(self.path) is not None

    @property
    def factory_file(self) -> str | None:
        """The file of a factory that stands in one."""
        place, _, _ = self.path.rpartition(":")
        return place if self.is_factory and place.endswith(".py") else None

    @model_validator(mode="after")
    def _fits(self) -> "ModelKeys":
        for key in ("revision", "device_map", "trust_remote_code"):
            if self.is_factory and getattr(self, key):
                raise ValueError(
                    f"{key} is for a language model; {self.path} is a function that makes one: leave it out"
                )
        return self


class ProblemKeys(Keys):
    """Which problem: `use` names a ready one or "my_file.py:problem"; or `pairs` names a file of pairs."""

    use: str | None = None
    pairs: str | None = None
    options: dict[str, Any] = {}

    @model_validator(mode="after")
    def _one_of_two(self) -> "ProblemKeys":
        if (self.use is None) == (self.pairs is None):
            raise ValueError('give one of "use" (a problem) and "pairs" (a file of pairs)')
        if self.pairs is not None and self.options:
            raise ValueError('"options" are for a problem ("use"), not for a file of pairs')
        return self


class PairsKeys(Keys):
    """How many pairs of each split, after screening; the seed of drawing and of order; only those that the model solves.

    `kinds`: which pairs decide. change: those whose counterfactual differs from the base's answer; both: those that it leaves alone too
    (specificity); unfiltered: all alike. `disjoint`: variables of which no value stands in two splits.
    """

    test: Positive = 512
    fit: Count = 512
    holdout: Count = 128
    seed: int = 0
    solved_only: bool = True
    kinds: Literal["change", "both", "unfiltered"] = "change"
    disjoint: tuple[str, ...] = ()


class AnswerKeys(Keys):
    """What of an answer is compared: its first token (a language model's), or the class (of a network on tensors)."""

    compare: Literal["first_token", "class"] = "first_token"


class FitKeys(Keys):
    """How subspaces are trained: on the fit pairs, by the cross entropy (or another loss) of the counterfactual answer.

    `boundary_learning_rate`: of the boundary of a boundless subspace. `warmup`: share of the steps. `validation`: share of the fit pairs
    that is held back to choose by; `evaluate`: how often it is looked at; `patience`: looks without improvement before training stops
    (0: never). `temperature`: from which a boundary or mask is cooled, `penalty`: the weight of its width in the loss (null: as the
    method's authors have it; from 50, theirs, a boundary collapses on vectors of a few dozen numbers). `seeds`: attempts at each
    subspace; the best by validation is tested. At each of the steps `rungs`, those that are not among the best `keep` of their variable,
    and match less than half of the threshold, go no further. `together`: so many seeds are trained in one batch, which is part of their
    numbers. `saves`: how often the state is kept, so that no more is lost with a worker. `warm_start`: `das` of several sizes at one site,
    for one variable, are trained from the largest downwards: each begins within the next larger one of its seed, in the directions along
    which sources differ most from bases (at random where that one failed). Sizes then wait for each other, so that fewer fits are on
    the way at once, and rungs compare those that are.
    """

    steps: Positive = 400
    batch: Positive = 32
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-3
    boundary_learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-2
    optimizer: Literal["adam", "adamw", "sgd"] = "adam"
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    schedule: Literal["linear", "constant", "cosine"] = "linear"
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    loss: Literal["cross_entropy", "logit_difference"] = "cross_entropy"
    validation: Rate = 0.2
    evaluate: Positive = 10
    patience: Count = 0
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    penalty: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    seeds: Annotated[tuple[Count, ...], Field(min_length=1)] = (0,)
    rungs: tuple[Positive, ...] = ()
    keep: Rate = 0.5
    together: Positive = 4
    saves: Positive = 4
    warm_start: bool = False

    @property
    def recipe(self) -> dict[str, Any]:
        """What a trainer is told; the other keys are the search's."""
        return self.model_dump(exclude={"seeds", "keep", "saves", "together", "warm_start"})

    @model_validator(mode="after")
    def _in_order(self) -> "FitKeys":
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds {list(self.seeds)} hold one twice; name each once")
        if list(self.rungs) != sorted(set(self.rungs)) or any(r >= self.steps for r in self.rungs):
            raise ValueError(f"rungs {list(self.rungs)} must rise, and lie below steps ({self.steps})")
        return self


class TestKeys(Keys):
    """When to believe it. `false_accept`: chance of any false accept in the search; `miss`: of rejecting one true hypothesis.

    `use`: sequential stops at a verdict, after at most `max_pairs`; fixed measures `pairs` pairs for every hypothesis, for estimates that
    no stopping has bent. `indifference`: half the width of a band around the threshold in which neither error is counted.
    `keep_threshold`: of the pairs that should stay as they are, with pairs.kinds: both (null: as `threshold`).
    """

    use: Literal["sequential", "fixed"] = "sequential"
    claim: Literal["auto", "sampler", "these_pairs"] = "auto"
    threshold: Rate = 0.8
    false_accept: Rate = 0.05
    miss: Rate = 0.05
    indifference: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    keep_threshold: Rate | None = None
    max_pairs: Positive = 512
    pairs: Positive | None = None

    @property
    def most_pairs(self) -> int:
        """Of a hypothesis."""
        return self.max_pairs if self.pairs is None else self.pairs

    @model_validator(mode="after")
    def _fits(self) -> "TestKeys":
        if not self.indifference < self.threshold < 1 - self.indifference:
            raise ValueError(
                f"threshold {self.threshold:g} and indifference {self.indifference:g}: the band around the threshold must lie "
                "between 0 and 1"
            )
        if self.use == "fixed" and self.pairs is None:
            raise ValueError(
                "use: fixed measures a fixed number of pairs for every hypothesis; give it, such as pairs: 128"
            )
        if self.use == "sequential" and self.pairs is not None:
            raise ValueError("pairs is for use: fixed; the sequential test has max_pairs")
        return self


class ProposeKeys(Keys):
    """Which hypotheses to test next."""

    use: Literal["exhaustive"] = "exhaustive"


Control = Literal["random_subspace", "random_model", "arbitrary_labels", "placebo"]


Seconds = Literal["auto"] | Annotated[float, Field(gt=0, allow_inf_nan=False)]
Amount = Annotated[float, Field(gt=0, allow_inf_nan=False)]
LabelKey = Annotated[str, Field(pattern=r"^([A-Za-z0-9.-]+/)?[A-Za-z0-9]([\w.-]{0,61}[A-Za-z0-9])?$")]
LabelSelector = Annotated[str, Field(pattern=r"^!?(in\([\w., -]+\)|[A-Za-z0-9]([\w.-]{0,61}[A-Za-z0-9])?)$")]
OWN_KEYS = {"CPU": "cpus", "GPU": "gpus", "memory": "memory"}


class ResourcesKeys(Keys):
    """What each replica may use, and how many there are. Changes no answer.

    `replicas`: so many, or as many as the cluster has room for, as it grows and shrinks; up to `max_replicas` a cluster that has an
    autoscaler is asked for more while there is work for them (null: what is there is used). `gpus`: of each replica, parts of one (0.5)
    or several (2, with `model.device_map`); auto takes one where there is one, else the CPU; a number is a requirement. `labels`: of
    the nodes that may hold replicas, as Ray's label selectors have them ("H100", "!H100", "in(H100, A100)"); `custom`: resources of a
    node that each replica takes, by name. `rows`: rows of one forward pass, and of a task. `memory`: GiB of a replica for activations
    that it keeps (auto: as there is room). `deadline`: seconds that a task may take at most (auto: ten minutes); less where tasks prove
    to be quicker. `wait`: seconds that a run goes on without any replica, and that one may load (auto: ten minutes).
    """

    replicas: Literal["auto"] | Positive = "auto"
    max_replicas: Positive | None = None
    gpus: Literal["auto"] | Annotated[float, Field(ge=0, allow_inf_nan=False)] = "auto"
    cpus: Positive = 1
    labels: dict[LabelKey, LabelSelector] = {}
    custom: dict[str, Amount] = {}
    rows: Positive = 64
    memory: Literal["auto"] | Amount = "auto"
    deadline: Seconds = "auto"
    wait: Seconds = "auto"

    @model_validator(mode="after")
    def _can_be_asked(self) -> "ResourcesKeys":
        if self.max_replicas is not None and self.replicas != "auto":
            raise ValueError(
                f"max_replicas is for replicas: auto; replicas says {self.replicas}: leave one of them out"
            )
        for name, amount in (*self.custom.items(), ("gpus", self.gpus)):
            if name in OWN_KEYS:
                raise ValueError(f"custom: {name} is not a custom resource; resources.{OWN_KEYS[name]} asks for it")
            if amount != "auto" and amount > 1 and amount != int(amount):
                raise ValueError(f"{name}: {amount:g} cannot be given; it may be a part of one, or a whole number")
        return self
