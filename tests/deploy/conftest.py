"""The command line as a user calls it."""

from tests.cli.conftest import shell

__all__ = ["shell"]
