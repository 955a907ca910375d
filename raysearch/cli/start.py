"""Starts the command line; where not even that can be imported, one line says what is missing."""

import sys


def main() -> None:
    """Runs the command `raysearch`."""
    try:
        from raysearch.cli.main import main as command
    except ModuleNotFoundError as e:
        if (e.name or "").startswith("raysearch"):
            raise
        sys.exit(
            f"raysearch: the package {e.name} is not installed in {sys.prefix}, and every command "
            f"needs it; install raysearch anew there (pip install -e . where the sources are), or "
            f"run it by another interpreter (of a Ray job: submit --python)"
        )
    command()
