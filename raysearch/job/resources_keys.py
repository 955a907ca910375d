"""The keys of `resources`: how large a replica is, and how many there are."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from raysearch.core.key_types import Amount, Keys, Positive, Weight, at_most

Seconds = Literal["auto"] | Amount
LabelKey = Annotated[
    str, Field(pattern=r"^([A-Za-z0-9.-]+/)?[A-Za-z0-9]([\w.-]{0,61}[A-Za-z0-9])?$")
]
LabelSelector = Annotated[
    str, Field(pattern=r"^!?(in\([\w., -]+\)|[A-Za-z0-9]([\w.-]{0,61}[A-Za-z0-9])?)$")
]
OWN_KEYS = {"CPU": "cpus", "GPU": "gpus", "memory": "memory"}


class ResourcesKeys(Keys):
    """The resources of each replica, and the number of replicas. On one kind of processor they
    change no answer, in half precision neither: where the rounding of a batch could turn an output,
    it is decided again by itself. What is trained, effects of `attribution` and scores
    (`answer.scores`) carry the rounding of their batch, whose size `rows` and `tokens` bound: their
    last digits may differ, and with them a verdict that is close (docs/how-to/your-own-model.md).
    """

    replicas: Literal["auto"] | Positive = Field(
        default="auto",
        description="So many; auto: as many as the cluster has room for, as it grows and shrinks.",
    )
    max_replicas: Positive | None = Field(
        default=None,
        description="With replicas: auto, a cluster that has an autoscaler is asked for more, up "
        "to so many, while there is work for "
        "them; null: what is there is used.",
    )
    gpus: Literal["auto"] | Weight = Field(
        default="auto",
        description="Of each replica, parts of one (0.5) or several (2, with `model.device_map`), "
        "as a requirement; auto: one where there "
        "is one, else the CPU.",
    )
    cpus: Annotated[Positive, at_most(4096)] = Field(default=1, description="CPUs of each replica.")
    labels: dict[LabelKey, LabelSelector] = Field(
        default={},
        description="Of the nodes that may hold replicas, as Ray's label selectors have them "
        "(`H100`, `!H100`, `in(H100, A100)`).",
    )
    custom: dict[str, Amount] = Field(
        default={}, description="Resources of a node that each replica takes, by name."
    )
    rows: Positive = Field(
        default=64, description="Rows of one forward pass, at most, and of a task."
    )
    tokens: Literal["auto"] | Positive = Field(
        default="auto",
        description="Tokens that the rows of one wave compute together, at most; auto: as few as "
        "run at nearly the best rate, measured when a replica opens.",
    )
    memory: Literal["auto"] | Annotated[Amount, at_most(2**20)] = Field(
        default="auto",
        description="GiB of a replica for activations that it keeps; auto: as there is room.",
    )
    deadline: Seconds = Field(
        default="auto",
        description="Seconds that a task may take at most (auto: ten minutes); less where tasks "
        "prove to be quicker.",
    )
    wait: Seconds = Field(
        default="auto",
        description="Seconds that a run goes on without any replica, and that one may load (auto: "
        "ten minutes).",
    )

    @model_validator(mode="after")
    def _can_be_asked(self) -> "ResourcesKeys":
        if self.max_replicas is not None and self.replicas != "auto":
            raise ValueError(
                f"max_replicas is for replicas: auto; replicas says {self.replicas}: leave one of "
                f"them out"
            )
        for name, amount in (*self.custom.items(), ("gpus", self.gpus)):
            if name in OWN_KEYS:
                raise ValueError(
                    f"custom: {name} is not a custom resource; resources.{OWN_KEYS[name]} asks for "
                    f"it"
                )
            if amount != "auto" and amount > 1 and amount != int(amount):
                raise ValueError(
                    f"{name}: {amount:g} cannot be given; it may be a part of one, or a whole "
                    f"number"
                )
        return self
