"""Evidence: how many pairs were seen and how many of them matched; and the looks at which it is judged.

Invariants: 0 <= matches <= n; looks rise strictly and end at the last pair.
"""

from dataclasses import dataclass

FIRST_LOOKS = (4, 8, 12)


@dataclass(frozen=True, slots=True)
class Evidence:
    """`matches` of `n` pairs."""

    n: int = 0
    matches: int = 0

    def __post_init__(self) -> None:
        assert 0 <= self.matches <= self.n, self

    @property
    def iia(self) -> float | None:
        """matches / n in [0, 1]; None before the first pair."""
        return self.matches / self.n if self.n else None

    def plus(self, n: int, matches: int) -> "Evidence":
        """This evidence and `matches` of `n` further pairs."""
        return Evidence(self.n + n, self.matches + matches)


def looks(last: int) -> tuple[int, ...]:
    """The numbers of pairs after which the test looks: 4, 8, 12, then half as many again each time, the last at `last`."""
    out = [n for n in FIRST_LOOKS if n < last]
    following = FIRST_LOOKS[-1] * 3 // 2
    while following < last:
        out.append(following)
        following = following * 3 // 2
    return (*out, last) if last > 0 else ()
