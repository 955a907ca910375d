"""What is claimed: causal models, inputs, pairs, and how pairs are drawn. Standard library only."""

from raysearch.causal.model import CausalModel, Setting, Value, Variable
from raysearch.causal.pair_sample import LeftOutCount, LeftOutReason, PairSample
from raysearch.causal.pairs import (
    LAST,
    ONE_SOURCE,
    SPLITS,
    Input,
    Pair,
    Span,
    Split,
    differing_shares,
    lenders,
)
from raysearch.causal.position_names import EVERY, TAKES, Take, index_of, taken, token
from raysearch.causal.problem import Problem, digest_of, draw_pairs, draws, split_by, split_of
from raysearch.causal.stimulus import Stimulus
from raysearch.old_paths import announce

__all__ = [
    "EVERY",
    "LAST",
    "ONE_SOURCE",
    "SPLITS",
    "TAKES",
    "CausalModel",
    "Input",
    "LeftOutCount",
    "LeftOutReason",
    "Pair",
    "PairSample",
    "Problem",
    "Setting",
    "Span",
    "Split",
    "Stimulus",
    "Take",
    "Value",
    "Variable",
    "differing_shares",
    "digest_of",
    "draw_pairs",
    "draws",
    "index_of",
    "lenders",
    "split_by",
    "split_of",
    "taken",
    "token",
]

announce(
    __name__,
    ("CausalModel", "Input", "Pair", "Problem", "Setting", "Value", "Variable", "draw_pairs"),
)
