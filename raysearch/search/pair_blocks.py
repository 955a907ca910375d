"""Blocks: how solved pairs are cut into the units of evidence, and what each pair expects of an
output.

Invariants: test blocks end at the looks of the sequential test; a block's pairs are fixed before
anything is measured.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from raysearch.causal import Split, differing_shares
from raysearch.core.answers import AS_SAID, AnswerMatcher
from raysearch.core.events import Block, Encoded, Ids
from raysearch.errors import PairsError
from raysearch.stats.evidence import looks

EVEN_BLOCK = 32
"""Pairs of a block that no test looks at (screening, holdout). Fixed, so that a resumed run cuts as
the first one did."""


@dataclass(frozen=True, slots=True)
class ExpectedAnswers:
    """What an output of one pair is held against: the answers of base and sources, and each
    variable's counterfactual.

    `set`: the kind of the pair, where kinds are told apart. `readings`: how outputs are read, the
    same for all pairs of a run.
    """

    split: Split
    base: Ids
    sources: Mapping[str, Ids]
    counterfactual: Mapping[str, Ids]
    set: str | None = None
    readings: AnswerMatcher = field(default=AS_SAID, repr=False)
    blurred: frozenset[tuple[str, str]] = frozenset()
    """Two answers of it (a variable's counterfactual; "": the base's) that are other texts, and the
    same by the compared tokens."""

    def read(self, output: Ids) -> Ids:
        """The answer that `output` is."""
        return self.readings.read(output)

    def changes(self, variable: str) -> bool:
        """Whether it is a change pair for `variable`: its counterfactual differs from the base's
        answer."""
        return self.counterfactual[variable] != self.base

    def is_blurred(self, one: str, other: str) -> bool:
        """Whether two answers are other texts that the compared tokens do not tell apart."""
        return (one, other) in self.blurred


def expected(
    encoded: Encoded,
    split: Split,
    kind: str | None = None,
    readings: AnswerMatcher = AS_SAID,
    texts: Mapping[str, str] | None = None,
) -> ExpectedAnswers:
    """What the outputs of an encoded pair are held against. `texts`: its counterfactuals by
    variable, and the base's answer as ""."""
    sources = {name: ids for name, ids in encoded.answers.items() if name != "base"}
    ids = {"": encoded.answers["base"], **encoded.counterfactual}
    two = combinations((name for name in ids if texts is not None and name in texts), 2)
    blurred = frozenset(
        (a, b) for a, b in two if texts is not None and texts[a] != texts[b] and ids[a] == ids[b]
    )
    return ExpectedAnswers(
        split, encoded.answers["base"], sources, encoded.counterfactual, kind, readings, blurred
    )


def cut_at_looks(pairs: Sequence[int]) -> tuple[Block, ...]:
    """Test `pairs`, cut at the looks."""
    ends = looks(len(pairs))
    starts = (0, *ends[:-1])
    return tuple(
        Block("test", i, tuple(pairs[a:b]))
        for i, (a, b) in enumerate(zip(starts, ends, strict=False))
    )


def even_blocks(split: Split, pairs: Sequence[int], size: int, first: int = 0) -> tuple[Block, ...]:
    """`pairs` in blocks of `size`, numbered from `first`."""
    return tuple(
        Block(split, first + i, tuple(pairs[at : at + size]))
        for i, at in enumerate(range(0, len(pairs), size))
    )


def check_variables(pairs: Sequence[ExpectedAnswers], what: str) -> None:
    """Raises: PairsError for a variable that never changes an answer, or two that no pair tells
    apart (by the compared tokens).

    `what` says which pairs these are.
    """
    variables = tuple(pairs[0].counterfactual) if pairs else ()
    for variable in variables:
        if not any(p.changes(variable) for p in pairs):
            blurred = sum(p.is_blurred("", variable) for p in pairs)
            if blurred:
                raise PairsError(
                    f"space.variables: {variable!r} cannot be seen to change the answer: on "
                    f"{blurred} of {what} its counterfactual begins "
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
            blurred = sum(p.is_blurred(v, w) for p in pairs)
            if blurred:
                raise PairsError(
                    f"space.variables: no pair tells {v!r} and {w!r} apart: on {blurred} of {what} "
                    f"their counterfactuals differ and begin "
                    "with the same token, and first tokens are compared; set answer.compare: "
                    "sequence"
                )
            raise PairsError(
                f"space.variables: no pair tells {v!r} and {w!r} apart: their counterfactuals "
                f"agree on all {what}; "
                "give pairs on which they differ, or leave one out"
            )
