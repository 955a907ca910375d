"""Renders a chat template, which is foreign code, within limits of time, memory and characters.

The first prompt is rendered in a fork of this process, which is ended when it takes too long;
memory that it would take is refused by the system. Templates that end there are then run here.

Invariants: the fork runs nothing but the template, and leaves by `os._exit`.
"""

import os
import resource
import select
import signal
import time
from collections.abc import Callable
from contextlib import suppress

from raysearch.limits import PROMPT_CHARACTERS, TEMPLATE_BYTES, TEMPLATE_SECONDS


class EndlessTemplateError(ValueError):
    """A template takes too long, or makes too much."""


def check_template(render: Callable[[], str]) -> None:
    """Renders once in a fork. Raises: EndlessTemplateError if that passes a limit."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _render(render, writing)
    os.close(writing)
    try:
        said = _answer(reading)
    finally:
        os.close(reading)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    if said == b"":
        raise EndlessTemplateError(f"it takes more than {TEMPLATE_SECONDS:.0f} s or memory")
    if said == b"memory":
        raise EndlessTemplateError(f"it takes more than {TEMPLATE_BYTES / 2**30:.0f} GiB of memory")
    if said.isdigit():
        check_length(int(said))


def check_length(characters: int) -> None:
    """Raises: EndlessTemplateError for a prompt that is too long."""
    if characters > PROMPT_CHARACTERS:
        raise EndlessTemplateError(
            f"it makes a prompt of {characters:,} characters, and at most {PROMPT_CHARACTERS:,} "
            f"are allowed"
        )


def _render(render: Callable[[], str], writing: int) -> None:
    """In the fork: writes the number of characters, or a word for what went wrong."""
    said = b"error"
    try:
        with open("/proc/self/statm") as pages:
            has = int(pages.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (has + TEMPLATE_BYTES,) * 2)
        said = str(len(render())).encode()
    except MemoryError:
        said = b"memory"
    finally:
        os.write(writing, said)
        os._exit(0)


def _answer(reading: int) -> bytes:
    """Returns what the fork writes in time; b"" if nothing."""
    end, said = time.monotonic() + TEMPLATE_SECONDS, b""
    while (left := end - time.monotonic()) > 0:
        if select.select([reading], [], [], left)[0]:
            part = os.read(reading, 64)
            if not part:
                break
            said += part
    return said
