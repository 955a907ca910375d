"""Counts bytecodes of ours: a comprehension over rows is seen, which calls alone would not show."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import raysearch

Result = TypeVar("Result")
_OURS = str(Path(raysearch.__file__).parent) + "/"


def bytecodes(do: Callable[[], Result]) -> tuple[Result, int]:
    """What `do` returns, and how many bytecodes of raysearch it runs."""
    count = 0

    def traced(frame: FrameType, event: str, _: object) -> Any:
        nonlocal count
        if event == "call" and not frame.f_code.co_filename.startswith(_OURS):
            return None
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        count += event == "opcode"
        return traced

    before = sys.gettrace()
    sys.settrace(traced)
    try:
        result = do()
    finally:
        sys.settrace(before)
    return result, count
