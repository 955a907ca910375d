"""`python -m raysearch` is the command `raysearch`: for what starts a module, as a profiler does."""

from raysearch.cli.start import main

main()
