"""Renders one chat template; run as a script, in a process of its own, by template.py.

Reads [template, text, special tokens, seconds, bytes] as JSON. Writes "begun", then the number of
characters that the template makes, "memory" or "error"; nothing more where its time is up.

Invariants: imports nothing of raysearch, which the interpreter may not find.
"""

import json
import resource
import signal
import sys
from typing import Any


def _limit(seconds: float, more_bytes: int) -> None:
    """Ends this process after `seconds`, even inside C code; refuses memory beyond `more_bytes`."""
    with open("/proc/self/statm") as pages:
        has = int(pages.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (has + more_bytes,) * 2)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _try(template: str, text: str, tokens: dict[str, Any], seconds: float, more: int) -> str:
    from transformers.utils.chat_template_utils import render_jinja_template

    print("begun", flush=True)
    _limit(seconds, more)
    try:
        rendered: Any = render_jinja_template(
            conversations=[[{"role": "user", "content": text}]],
            chat_template=template,
            add_generation_prompt=True,
            **tokens,
        )
    except MemoryError:
        return "memory"
    except Exception:  # noqa: BLE001  whoever renders it next reports it
        return "error"
    return str(len(rendered[0][0]))


if __name__ == "__main__":
    print(_try(*json.load(sys.stdin)))
