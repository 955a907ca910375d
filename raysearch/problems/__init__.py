"""Ready-made problems, files of pairs, and how the problem of a job is loaded."""

from raysearch.problems.load_problem import load_problem
from raysearch.problems.pair_files import place_of, read_pairs, read_sample

__all__ = ["load_problem", "place_of", "read_pairs", "read_sample"]
