"""Tries a chat template, which is foreign code, within limits of time, memory and characters.

All prompts are rendered in a process of its own first, which is ended when one takes too long;
memory that it would take is refused by the system. Templates that end there are then run here.

Invariants: the other process is a new interpreter (no fork: this one has threads), which gets only
the template and its tokens, and no open file of ours.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from raysearch.limits import PROMPT_CHARACTERS, TEMPLATE_BYTES, TEMPLATE_SECONDS

_TRIAL = Path(__file__).with_name("chat_template_process.py")
_PYTHON = sys.executable


class EndlessTemplateError(ValueError):
    """A template takes too long, or makes too much."""


def check_template(template: str, texts: Sequence[str], tokens: dict[str, Any]) -> None:
    """Renders each of `texts` as a user turn, elsewhere. `tokens`: the special tokens, by name.

    Errors of the template's own are left to whoever renders it next.

    Raises: EndlessTemplateError if it passes a limit.
    """
    given = [template, list(texts), tokens, TEMPLATE_SECONDS, TEMPLATE_BYTES]
    said = _tried(json.dumps(given, default=str))
    if said == "memory":
        raise EndlessTemplateError(f"it takes more than {TEMPLATE_BYTES / 2**30:.0f} GiB of memory")
    if said == "begun":
        raise EndlessTemplateError(f"it takes more than {TEMPLATE_SECONDS:.0f} s or memory")
    if not said:
        raise EndlessTemplateError("it cannot be tried in a process of its own; try again")
    if said.isdigit():
        check_length(int(said))


def check_length(characters: int) -> None:
    """Raises: EndlessTemplateError for a prompt that is too long."""
    if characters > PROMPT_CHARACTERS:
        raise EndlessTemplateError(
            f"it makes a prompt of {characters:,} characters, and at most {PROMPT_CHARACTERS:,} "
            f"are allowed"
        )


@lru_cache(maxsize=4)
def _tried(given: str) -> str:
    """Returns the last word of the trial; "" if it ended before it began. It reads from a file: a
    pipe to a process that has ended would end a command that takes SIGPIPE as other tools do."""
    with tempfile.TemporaryFile("w+") as file:
        file.write(given)
        file.seek(0)
        done = subprocess.run(
            [_PYTHON, "-P", str(_TRIAL)],
            stdin=file,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
    return (done.stdout.split() or [""])[-1]
