"""Objects in the place of what a job names: how a job notes that its problem, or its model, was
given to `rs.run` as an object.

    <drinks>                 a problem object, by its name
    <LlamaForCausalLM>       a language model that somebody had loaded, by its class
    <Net on tensors>         a torch module on tensors

Invariants: such a note names nothing that can be found again, so whoever meets one without the
object is told what to give; no path of a file, hub id or function looks like it.
"""

import re

_ON_TENSORS = " on tensors"


def note(name: str, on_tensors: bool = False) -> str:
    """Returns the text by which a job names an object of this name or class."""
    plain = re.sub(r"[<>\s]+", " ", name).strip()
    return f"<{plain}{_ON_TENSORS if on_tensors else ''}>"


def is_note(path: str) -> bool:
    """Says whether a path is such a note."""
    return path.startswith("<") and path.endswith(">")


def is_note_on_tensors(path: str) -> bool:
    """Says whether a path is the note of a module on tensors."""
    return is_note(path) and path.endswith(f"{_ON_TENSORS}>")
