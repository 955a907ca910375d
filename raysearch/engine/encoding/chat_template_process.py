"""Renders texts by a chat template; run as a script, in a process of its own, by chat_template.py.

Reads [template, texts, special tokens, seconds of a text, bytes] as JSON. Writes "begun", then the
number of characters of the longest prompt, "memory" or "error"; nothing more where the time of a
text is up.

Invariants: imports nothing of raysearch, which the interpreter may not find.
"""

import json
import resource
import signal
import sys
from typing import Any


def _limit(more_bytes: int) -> None:
    """Refuses memory beyond `more_bytes`; an alarm ends this process, even inside C code."""
    with open("/proc/self/statm") as pages:
        has = int(pages.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (has + more_bytes,) * 2)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)


def _try(template: str, texts: list[str], tokens: dict[str, Any], seconds: float, more: int) -> str:
    from transformers.utils.chat_template_utils import render_jinja_template

    print("begun", flush=True)
    _limit(more)
    longest = 0
    try:
        for text in texts:
            signal.setitimer(signal.ITIMER_REAL, seconds)
            rendered: Any = render_jinja_template(
                conversations=[[{"role": "user", "content": text}]],
                chat_template=template,
                add_generation_prompt=True,
                **tokens,
            )
            longest = max(longest, len(rendered[0][0]))
    except MemoryError:
        return "memory"
    except Exception:  # noqa: BLE001  whoever renders it next reports it
        return "error"
    return str(longest)


if __name__ == "__main__":
    print(_try(*json.load(sys.stdin)))
