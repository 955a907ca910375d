"""The positions that a job names, held against those that its inputs have; tokens that it names itself are given to the inputs.

Invariants: after this every position of the job is known to the inputs, or is a token by index; a name has one meaning.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from raysearch.causal import EVERY, LAST, Input, Pair, index_of, taken
from raysearch.errors import JobError
from raysearch.job import Job
from raysearch.running.known import check_known


def check_positions(job: Job, named: Sequence[str], of: str) -> None:
    """Raises: JobError for a position that is none of `named` (by the problem, or on every line), nor said of one of them."""
    clash = next((name for name in job.space.declared if name in named), None)
    if clash is not None:
        raise JobError(f"space.positions: {clash!r} is a position of {of} already; name these tokens otherwise")
    known = (*named, *job.space.declared, LAST)
    asked = [("space.positions", name) for name in job.space.position_names or ()]
    asked += [(f"{path}.position", site.position) for path, site in job.space.unit_sites]
    for key, name in asked:
        if name != EVERY and index_of(name) is None and taken(name, known)[1] is None:
            check_known(key, "position", name, known, of)


def owned(positions: Sequence[str], known: Sequence[str]) -> list[str]:
    """Which of `known` the inputs themselves must have for these positions."""
    return [of for name in positions if (of := taken(name, (*known, LAST))[0]) in known]


def with_tokens(pairs: Sequence[Pair], declared: Mapping[str, tuple[int, ...]]) -> tuple[Pair, ...]:
    """The pairs, every input of which has these tokens by name."""
    if not declared:
        return tuple(pairs)

    def given(one: Input) -> Input:
        return replace(one, tokens={**one.tokens, **declared})

    return tuple(replace(p, base=given(p.base), sources={n: given(s) for n, s in p.sources.items()}) for p in pairs)
