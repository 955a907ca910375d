"""The widths to which rows are padded. This module does not import torch."""

WIDTH_STEP = 4
"""Batches of tokens are padded to a multiple of this many tokens: few distinct shapes, at most
three tokens of padding."""


def width_of(length: int) -> int:
    """Returns the padded width of a row of `length` tokens."""
    return -(-length // WIDTH_STEP) * WIDTH_STEP
