"""How often a process that is ours looks for garbage."""

import gc

NEW_OBJECTS = 20_000
"""After how many new objects Python looks through the youngest of them. Its own default is 700 in
Python 3.11 and 3.12, and 2,000 in 3.13."""


def collect_rarely() -> None:
    """Lets Python look for garbage less often, for the whole process.

    To import torch and transformers makes millions of objects that stay, and with Python's default
    they are looked through again and again: `raysearch run jobs/quickstart.yaml --pool local
    --tracking-uri none` took 9.3 s of a processor, and 7.4 with this (Python 3.11). Memory that no
    cycle of references holds is given back at once, as ever. A notebook's process is its user's, so
    only commands and Ray workers call this.
    """
    gc.set_threshold(NEW_OBJECTS)
