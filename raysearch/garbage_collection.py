"""How often a process that is ours looks for garbage."""

import gc

NEW_OBJECTS = 20_000
"""After how many new objects Python looks through the youngest of them; its own default is 700."""


def collect_rarely() -> None:
    """Lets Python look for garbage less often, for the whole process.

    To import torch and transformers makes millions of objects that stay. With Python's default a
    short search spends a quarter of its processor time on looking through them for garbage. Memory
    that no cycle of references holds is given back at once, as ever. A notebook's process is its
    user's, so only commands and Ray workers call this.
    """
    gc.set_threshold(NEW_OBJECTS)
