"""Ready-made causal models with their samplers, files of pairs, and how a job's problem is found."""

from raysearch.problems.files import line_of, read_pairs
from raysearch.problems.load import load_problem

__all__ = ["line_of", "load_problem", "read_pairs"]
