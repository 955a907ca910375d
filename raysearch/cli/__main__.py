"""Runs the command by `python -m raysearch.cli`, where its script is not on the PATH.

This is so in a cluster's job that brought raysearch along.

Invariants: the current folder comes last on the import path, not first as Python puts it, so that a
file there replaces no module.
"""

import os
import sys

if sys.path and sys.path[0] in ("", os.getcwd()):
    sys.path.append(sys.path.pop(0))

from raysearch.cli.start import main

main()
