"""`python -m raysearch.cli`: the command, where its script is not on the PATH (a job on a cluster that brought raysearch along)."""

from raysearch.cli.main import main

main()
