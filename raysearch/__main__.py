"""`python -m raysearch` is `python -m raysearch.cli`."""

from raysearch.cli import __main__ as _command  # noqa: F401  (runs it)
