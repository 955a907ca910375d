"""Ready-made causal models with their samplers, files of pairs, and how a job's problem is found."""

from raysearch.problems.load_problem import load_problem
from raysearch.problems.pair_files import place_of, read_drawn, read_pairs

__all__ = ["load_problem", "place_of", "read_drawn", "read_pairs"]
