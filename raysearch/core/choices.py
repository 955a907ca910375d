"""The words that a job chooses among, each list once."""

from typing import Literal

Loss = Literal["cross_entropy", "logit_difference"]


Schedule = Literal["linear", "constant", "cosine"]


Optimizer = Literal["adam", "adamw", "sgd"]


Operation = Literal["interchange", "zero", "mean", "resample"]
"""What is done to units: interchange puts in the source's activation; the others are ablations."""
