"""`python -m raysearch` is the command `raysearch`, for what wants a module, as a profiler does."""

from raysearch.cli.start import main

main()
