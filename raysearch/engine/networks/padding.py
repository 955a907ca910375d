"""Which inputs of different lengths share a batch. This module does not import torch."""

WIDTH_STEP = 4
"""Inputs whose lengths are equal up to a multiple of this many tokens share a batch, which is as
wide as its longest: few batches, at most three tokens of padding."""


def width_of(length: int) -> int:
    """Returns the largest width of a batch in which an input of `length` tokens may be."""
    return -(-length // WIDTH_STEP) * WIDTH_STEP
