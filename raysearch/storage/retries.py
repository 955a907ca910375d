"""Retries requests to a store that does not answer, with growing pauses and for a limited time;
warns once.

Invariants: permanent refusals (no such bucket, no rights) are not retried; nothing is tried after
`seconds`.
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
"""Seconds between two attempts; the last one repeats."""
_PERMANENT = (
    "ACCESS_DENIED",
    "NO_SUCH_BUCKET",
    "INVALID_ACCESS_KEY_ID",
    "INVALID_CLIENT_TOKEN_ID",
    "MISSING_AUTHENTICATION_TOKEN",
    "SIGNATURE_DOES_NOT_MATCH",
    "UNRECOGNIZED_CLIENT",
)
"""The AWS SDK's words, in the text of pyarrow's OSError, for errors that no later attempt would
mend.
"""


@dataclass
class RetryPolicy:
    """Retries for all folders of a store, so that one outage is logged once."""

    seconds: float = SECONDS
    _logged: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def call(self, place: str, call: Callable[[], T]) -> T:
        """Returns what `call` returns, and repeats it while it raises a temporary error.

        Raises:
            OSError: the last error, if it is permanent or time is up.
        """
        until = time.monotonic() + self.seconds
        tries = 0
        while True:
            try:
                answer = call()
            except OSError as e:
                pause = _PAUSES[min(tries, len(_PAUSES) - 1)]
                if is_permanent(e) or time.monotonic() + pause > until:
                    raise
                self._log_once(place, e)
                tries += 1
                time.sleep(pause)
            else:
                self._logged = False
                return answer

    def _log_once(self, place: str, e: OSError) -> None:
        with self._lock:
            logged, self._logged = self._logged, True
        if not logged:
            _log.warning(
                "%s does not answer (%s); trying again for up to %.0f s",
                place,
                short_message(e),
                self.seconds,
            )


def is_permanent(e: OSError) -> bool:
    """Says whether a later attempt would fail in the same way."""
    text = str(e)
    return isinstance(e, FileNotFoundError | PermissionError) or any(
        word in text for word in _PERMANENT
    )


def short_message(e: OSError) -> str:
    """Returns the store's own message, without pyarrow's context and the request's id."""
    text = " ".join(str(e).split())
    at = text.find("AWS Error")
    return (text[at:] if at >= 0 else text).partition(" (Request ID")[0][:300]
