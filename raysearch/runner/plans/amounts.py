"""Sizes and durations in words, for a plan."""


def size(amount: int) -> str:
    """Formats bytes: 0.53 GiB, 12 MiB, 4 KiB."""
    if amount >= 2**28:
        return f"{amount / 2**30:.2f} GiB"
    return f"{amount / 2**20:.3g} MiB" if amount >= 2**19 else f"{amount / 2**10:.3g} KiB"


def duration(seconds: float) -> str:
    """Formats seconds: 3.4 ms, 51 s, 12 min, 3.2 h."""
    if seconds < 1:
        return f"{seconds * 1e3:.{0 if seconds > 0.01 else 2}f} ms"
    if seconds < 120:
        return f"{seconds:.{0 if seconds > 10 else 1}f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
