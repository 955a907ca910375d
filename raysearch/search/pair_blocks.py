"""Cuts solved pairs into blocks, the units of evidence, and says which answers each pair expects.

Invariants: test blocks end at the looks of the sequential test; the pairs of a block are fixed
before anything is measured.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, groupby

from raysearch.causal import Split, differing_shares
from raysearch.core.answers import EXACT_MATCH, AnswerMatcher
from raysearch.core.events import Block, Encoded, Ids
from raysearch.errors import PairsError
from raysearch.stats.evidence import MATCHINGS, looks

EVEN_BLOCK = 32
"""Pairs in a block that no test looks at (screening). Fixed, so that a resumed run cuts the same
blocks.
"""
SMALLEST_PART = 4
"""Pairs that a generation is dealt, at least."""
HOLDOUT_BLOCK = 8
"""Pairs in a block of the holdout, after which a control may stop: the fewest that decide one."""


@dataclass(frozen=True, slots=True)
class ExpectedAnswers:
    """The answers that an output of one pair is compared with: those of base and sources, and each
    variable's counterfactual.

    Args:
        set: the kind of the pair, if the problem tells kinds apart.
        matcher: finds the answer that an output stands for; the same for all pairs of a run.
        contents: of base and sources, by which two pairs are the same; empty: this one is like no
            other.
        matching: as in `Pair`.
        added: as in `Pair`.
    """

    split: Split
    base: Ids
    sources: Mapping[str, Ids]
    counterfactual: Mapping[str, Ids]
    set: str | None = None
    matcher: AnswerMatcher = field(default=EXACT_MATCH, repr=False)
    ambiguous: frozenset[tuple[str, str]] = frozenset()
    """Two answers of the pair (a variable's counterfactual, or "" for the base's) whose texts
    differ and whose compared tokens are equal.
    """
    contents: tuple[str, ...] = field(default=(), repr=False)
    matching: int | None = None
    added: int = 0

    @property
    def value_block(self) -> int | None:
        """The block of values that the pair is of, for a claim about new values."""
        return None if self.matching is None else self.matching // MATCHINGS

    def read(self, output: Ids) -> Ids:
        """Returns the answer that `output` stands for."""
        return self.matcher.read(output)

    def changes(self, variable: str) -> bool:
        """Says whether this is a change pair for `variable`: the counterfactual differs from the
        base's answer."""
        return self.counterfactual[variable] != self.base

    def is_ambiguous(self, one: str, other: str) -> bool:
        """Says whether two answers are different texts with the same compared tokens."""
        return (one, other) in self.ambiguous


def expected_answers(
    encoded: Encoded,
    split: Split,
    kind: str | None = None,
    matcher: AnswerMatcher = EXACT_MATCH,
    texts: Mapping[str, str] | None = None,
    contents: tuple[str, ...] = (),
    matching: int | None = None,
    added: int = 0,
) -> ExpectedAnswers:
    """Builds the expected answers of an encoded pair.

    Args:
        texts: counterfactual texts by variable, and the base's answer under "".
    """
    sources = {name: ids for name, ids in encoded.answers.items() if name != "base"}
    ids = {"": encoded.answers["base"], **encoded.counterfactual}
    two = combinations((name for name in ids if texts is not None and name in texts), 2)
    ambiguous = frozenset(
        (a, b) for a, b in two if texts is not None and texts[a] != texts[b] and ids[a] == ids[b]
    )
    return ExpectedAnswers(
        split,
        encoded.answers["base"],
        sources,
        encoded.counterfactual,
        kind,
        matcher,
        ambiguous,
        contents,
        matching,
        added,
    )


def repeats(pairs: Iterable[tuple[int, tuple[str, ...]]]) -> frozenset[int]:
    """Returns the pairs that have the contents of an earlier one, of (pair, contents) in order."""
    seen: set[tuple[str, ...]] = set()
    found = set()
    for pair, contents in pairs:
        if contents and contents in seen:
            found.add(pair)
        seen.add(contents)
    return frozenset(found)


def cut_at_values(
    pairs: Sequence[int], of: Mapping[int, ExpectedAnswers], first: int = 0
) -> tuple[Block, ...]:
    """Cuts test pairs where a block of values ends, into blocks numbered from `first`."""
    blocks = groupby(pairs, key=lambda p: of[p].value_block)
    return tuple(Block("test", first + i, tuple(block)) for i, (_, block) in enumerate(blocks))


def cut_at_looks(pairs: Sequence[int], first: int = 0, after: int = 0) -> tuple[Block, ...]:
    """Cuts test pairs at the looks of the sequential test, into blocks numbered from `first`;
    `after`: number of pairs that were cut before.
    """
    ends = [end - after for end in looks(after + len(pairs)) if end > after]
    starts = (0, *ends[:-1])
    return tuple(
        Block("test", first + i, tuple(pairs[a:b]))
        for i, (a, b) in enumerate(zip(starts, ends, strict=False))
    )


@dataclass(frozen=True, slots=True)
class TestPart:
    """Test pairs that one or several generations of hypotheses are tested on.

    Args:
        pairs: all of them, in order.
        blocks: blocks of those that the test may use, numbered after those of the parts before.
    """

    __test__ = False  # no test of pytest's

    pairs: tuple[int, ...]
    blocks: tuple[Block, ...]

    @property
    def used(self) -> int:
        """Number of pairs in blocks."""
        return sum(len(block.pairs) for block in self.blocks)


NO_PAIRS = TestPart((), ())
ENOUGH = 256
"""Pairs on which hypotheses of IIA .95 are accepted with a chance of .93, if 100 are proposed in
the seventh generation (threshold .8); of .99 without the futility stop."""


def deal(pairs: tuple[int, ...], most: int) -> list[tuple[int, ...]]:
    """Deals pairs out to generations: each gets half of what is left, at most `most`, until fewer
    are left than `SMALLEST_PART`. How many generations come is not known beforehand; but a later
    one gets no fewer than ENOUGH while there are any, since fewer could hardly accept anything.
    """
    parts: list[tuple[int, ...]] = []
    least = 0
    while (size := min(most, max(len(pairs) // 2, min(least, len(pairs))))) >= SMALLEST_PART:
        least = ENOUGH
        parts.append(pairs[:size])
        pairs = pairs[size:]
    return parts or [pairs[:most]]


def deal_out(
    parts: Sequence[tuple[int, ...]],
    max_pairs: int,
    at_looks: bool,
    of: Mapping[int, ExpectedAnswers],
) -> tuple[TestPart, ...]:
    """Cuts each part into blocks, numbered through all parts; `of`: what pairs expect."""
    found: list[TestPart] = []
    first = 0
    for pairs in parts:
        used = pairs[:max_pairs]
        if not at_looks:
            blocks = even_blocks("test", used, EVEN_BLOCK, first)
        elif used and of[used[0]].matching is not None:
            blocks = cut_at_values(used, of, first)
        else:
            blocks = cut_at_looks(used, first)
        found.append(TestPart(pairs, blocks))
        first += len(blocks)
    return tuple(found)


def even_blocks(split: Split, pairs: Sequence[int], size: int, first: int = 0) -> tuple[Block, ...]:
    """Cuts `pairs` into blocks of `size`, numbered from `first`."""
    return tuple(
        Block(split, first + i, tuple(pairs[at : at + size]))
        for i, at in enumerate(range(0, len(pairs), size))
    )


def check_variables(pairs: Sequence[ExpectedAnswers], what: str) -> None:
    """Checks that every variable can be told from the base's answer and from every other variable.

    Args:
        what: a description of the pairs, for error messages.

    Raises:
        PairsError: a variable never changes an answer, or no pair tells two apart by the compared
            tokens.
    """
    variables = tuple(pairs[0].counterfactual) if pairs else ()
    for variable in variables:
        if not any(p.changes(variable) for p in pairs):
            ambiguous = sum(p.is_ambiguous("", variable) for p in pairs)
            if ambiguous:
                raise PairsError(
                    f"space.variables: {variable!r} cannot be seen to change the answer: on "
                    f"{ambiguous} of {what} its counterfactual begins "
                    "with the same token as the base's answer, and first tokens are compared; set "
                    "answer.compare: sequence"
                )
            raise PairsError(
                f"space.variables: {variable!r} never changes the answer: on all {what} its "
                f"counterfactual is the "
                "base's answer; give pairs on which it matters, or leave it out"
            )
    for (v, w), share in (
        differing_shares([p.counterfactual for p in pairs], variables) if pairs else {}
    ).items():
        if share == 0:
            ambiguous = sum(p.is_ambiguous(v, w) for p in pairs)
            if ambiguous:
                raise PairsError(
                    f"space.variables: no pair tells {v!r} and {w!r} apart: on {ambiguous} of "
                    f"{what} their counterfactuals differ and begin with the same token, and first "
                    "tokens are compared; set answer.compare: sequence"
                )
            raise PairsError(
                f"space.variables: no pair tells {v!r} and {w!r} apart: their counterfactuals "
                f"agree on all {what}; "
                "give pairs on which they differ, or leave one out"
            )
