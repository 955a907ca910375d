"""Names that a job chooses among in several rooms, each list written once."""

from typing import Literal

Loss = Literal["cross_entropy", "logit_difference"]


Schedule = Literal["linear", "constant", "cosine"]


Optimizer = Literal["adam", "adamw", "sgd"]
