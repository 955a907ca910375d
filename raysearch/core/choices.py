"""The words that a job chooses among, each list once."""

from typing import Literal

Loss = Literal["cross_entropy", "logit_difference"]


Schedule = Literal["linear", "constant", "cosine"]


Optimizer = Literal["adam", "adamw", "sgd"]
