"""Causal models, inputs, pairs, and drawing of pairs; standard library only."""

from raysearch.causal.model import CausalModel, Setting, Value, Variable
from raysearch.causal.pair_drawing import draw_more, draw_pairs, draw_sample
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
    named_sources,
)
from raysearch.causal.position_names import EVERY, TAKES, Take, split_take, token_index, token_name
from raysearch.causal.problem import Problem
from raysearch.causal.splits import digest_of, split_of, split_of_digest
from raysearch.causal.tensor_input import Stimulus
from raysearch.causal.value_matchings import draw_matched
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
    "draw_matched",
    "draw_more",
    "draw_pairs",
    "draw_sample",
    "named_sources",
    "split_of",
    "split_of_digest",
    "split_take",
    "token_index",
    "token_name",
]

announce(
    __name__,
    ("CausalModel", "Input", "Pair", "Problem", "Setting", "Value", "Variable", "draw_pairs"),
)
