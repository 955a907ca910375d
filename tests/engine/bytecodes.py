"""Counts bytecodes of ours: a comprehension over rows is seen, which calls alone would not show."""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any, TypeVar

Result = TypeVar("Result")


def bytecodes(do: Callable[[], Result]) -> tuple[Result, int]:
    """What `do` returns, and how many bytecodes of raysearch it runs."""
    count = 0

    def traced(frame: FrameType, event: str, _: object) -> Any:
        nonlocal count
        if event == "call" and "/raysearch/" not in frame.f_code.co_filename:
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
