"""Retries of a store that does not answer, in one place: with a growing pause, for a bounded time,
said once.

Invariants: what the store refuses for good (no such bucket, no rights) is not asked again; nothing
is tried after `seconds`.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

T = TypeVar("T")
_log = logging.getLogger("raysearch.store")

SECONDS = 120.0
_PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds between two tries; the last one is kept to."""
_FOR_GOOD = (
    "ACCESS_DENIED",
    "NO_SUCH_BUCKET",
    "INVALID_ACCESS_KEY_ID",
    "INVALID_CLIENT_TOKEN_ID",
    "MISSING_AUTHENTICATION_TOKEN",
    "SIGNATURE_DOES_NOT_MATCH",
    "UNRECOGNIZED_CLIENT",
)
"""The AWS SDK's words, in the text of pyarrow's OSError, for what no later try would mend."""


@dataclass
class RetryPolicy:
    """One for all folders of a store, so that one outage is said once."""

    seconds: float = SECONDS
    _said: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, place: str, call: Callable[[], T]) -> T:
        """What `call` returns, asked again while it raises what may pass. Raises: OSError, the last
        one."""
        until = time.monotonic() + self.seconds
        tries = 0
        while True:
            try:
                answer = call()
            except OSError as e:
                pause = _PAUSES[min(tries, len(_PAUSES) - 1)]
                if is_for_good(e) or time.monotonic() + pause > until:
                    raise
                self._say(place, e)
                tries += 1
                time.sleep(pause)
            else:
                self._said = False
                return answer

    def _say(self, place: str, e: OSError) -> None:
        with self._lock:
            said, self._said = self._said, True
        if not said:
            _log.warning(
                "%s does not answer (%s); trying again for up to %.0f s",
                place,
                in_short(e),
                self.seconds,
            )


def is_for_good(e: OSError) -> bool:
    """Whether the store would say the same again."""
    text = str(e)
    return isinstance(e, FileNotFoundError | PermissionError) or any(
        word in text for word in _FOR_GOOD
    )


def in_short(e: OSError) -> str:
    """The store's own word for it: pyarrow's text without what it was doing and the request's
    number."""
    text = " ".join(str(e).split())
    at = text.find("AWS Error")
    return (text[at:] if at >= 0 else text).partition(" (Request ID")[0][:300]
