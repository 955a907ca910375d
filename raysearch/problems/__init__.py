"""Ready-made causal models with their samplers, files of pairs, and how a job's problem is found."""

from raysearch.problems.files import read_pairs
from raysearch.problems.load import load_problem

__all__ = ["load_problem", "read_pairs"]
