"""`python -m raysearch.cli`: the command, where its script is not on the PATH (a job on a cluster
that brought raysearch along).

Invariants: the folder where it is called is looked in last, not first as Python has it: a file
there takes the place of no module.
"""

import os
import sys

if sys.path and sys.path[0] in ("", os.getcwd()):
    sys.path.append(sys.path.pop(0))

from raysearch.cli.main import main

main()
