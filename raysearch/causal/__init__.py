"""What is claimed: causal models, inputs, pairs, and how pairs are drawn. Standard library only."""

from raysearch.causal.model import CausalModel, Setting, Value, Variable
from raysearch.causal.pairs import LAST, ONE_SOURCE, SPLITS, Input, Pair, Span, Split, differing_shares, lenders
from raysearch.causal.problem import Problem, draw_pairs, split_of
from raysearch.causal.stimulus import Stimulus

__all__ = [
    "LAST",
    "ONE_SOURCE",
    "SPLITS",
    "CausalModel",
    "Input",
    "Pair",
    "Problem",
    "Setting",
    "Span",
    "Split",
    "Stimulus",
    "Value",
    "Variable",
    "differing_shares",
    "draw_pairs",
    "lenders",
    "split_of",
]
