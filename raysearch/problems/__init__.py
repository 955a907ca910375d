"""Ready-made causal models with their samplers, files of pairs, and how a job's problem is found."""

from raysearch.problems.files import place_of, read_drawn, read_pairs
from raysearch.problems.load import load_problem

__all__ = ["load_problem", "place_of", "read_drawn", "read_pairs"]
