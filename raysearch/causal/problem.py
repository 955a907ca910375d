"""A problem: a causal model with a sampler of pairs; and how pairs are drawn from it.

Invariants: no (base, source) is in two splits, because the domain is divided before anything is
drawn; the same seed draws the same pairs; draws are independent and identically distributed within
a split (claim: sampler).
"""

import hashlib
import random
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from raysearch.causal.model import CausalModel, Setting, Value
from raysearch.causal.pair_sample import LeftOutCount, LeftOutReason, PairSample
from raysearch.causal.pairs import LAST, ONE_SOURCE, SPLITS, Input, Pair, Split
from raysearch.errors import PairsError, RaysearchError

MISSES = 1_000
"""Draws in a row outside a split, times the inverse of its share, after which the split counts as
empty.
"""
MOST_MISSES = 300_000
"""Upper bound of these draws for rare splits: some ten seconds of drawing."""


@dataclass(frozen=True)
class Problem:
    """A causal model, and how its settings become texts (or tensors) and answers.

    Args:
        sample: draws the inputs' values of one (base, source).
        render: writes the text and its spans, or the stimulus and its tokens, from the values of
            all variables.
        answer: writes the output variable's value as the text that follows, or as its class ("0",
            "1", ...).
        positions: names that every rendered input has; "last" need not be named.
        set_of: names the kind of a (base, source) pair, for results per set; None for no sets.
        choices: lists the answers among which an input's answer is chosen (answer.compare:
            choices). A pair chooses among those of base and source.

    Raises:
        PairsError: a field has the wrong type, or a position is named twice or is "last".
    """

    name: str
    model: CausalModel
    sample: Callable[[random.Random], tuple[Setting, Setting]]
    render: Callable[[Setting], Input]
    answer: Callable[[Value], str]
    positions: tuple[str, ...]
    set_of: Callable[[Setting, Setting], str] | None = None
    choices: Callable[[Setting], Sequence[Value]] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.model, CausalModel):
            raise PairsError(
                f"problem {self.name!r}: model is {self.model!r:.60}; give a CausalModel"
            )
        for field in ("sample", "render", "answer"):
            if not callable(getattr(self, field)):
                raise PairsError(
                    f"problem {self.name!r}: {field} is {getattr(self, field)!r:.60}; give a "
                    f"function"
                )
        if isinstance(self.positions, str):
            raise PairsError(
                f"problem {self.name!r}: positions is a text; give a tuple of names, "
                f"({self.positions!r},)"
            )
        if LAST in self.positions or len(set(self.positions)) < len(self.positions):
            raise PairsError(
                f"problem {self.name!r}: positions {self.positions}: name each once, and {LAST!r} "
                f"not at all (it always exists)"
            )


def draw_pairs(
    problem: Problem,
    variables: tuple[str, ...],
    counts: Mapping[Split, int],
    seed: int,
    disjoint: Sequence[str] = (),
) -> tuple[Pair, ...]:
    """Draws pairs of every split, `counts[split]` each, with the counterfactual of each of
    `variables`.

    Args:
        disjoint: variables of which no value may be in two splits, in base or source; pairs with
            values of several splits are skipped.

    Raises:
        PairsError: a split's part of the domain seems to be empty, or no pair is asked for.
    """
    return draw_sample(problem, variables, counts, seed, disjoint).pairs


def draw_sample(
    problem: Problem,
    variables: tuple[str, ...],
    counts: Mapping[Split, int],
    seed: int,
    disjoint: Sequence[str] = (),
) -> PairSample:
    """Draws the pairs of `draw_pairs` and counts the draws that were left out.

    Raises:
        PairsError: as in `draw_pairs`.
    """
    if isinstance(variables, str):
        raise PairsError(
            f"variables is the text {variables!r}; give a tuple of names, ({variables!r},)"
        )
    if not any(counts.values()):
        raise PairsError(f'counts {dict(counts)} ask for no pair; give some, such as {{"test": 1}}')
    rng = random.Random(f"{seed}.pairs.{problem.name}")
    missing = dict(counts)
    pairs: list[Pair] = []
    left: Counter[tuple[LeftOutReason, Split | None, str | None]] = Counter()
    misses = 0
    rarest = max(1, sum(counts.values()) // min(n for n in counts.values() if n))
    max_misses = min(MISSES * rarest ** max(1, 2 * len(disjoint)), MOST_MISSES)
    while any(missing.values()):
        pair = _draw(problem, variables, len(pairs), rng)
        split = (
            _split_by_values(pair, disjoint, counts, seed)
            if disjoint
            else _split_by_content(pair, counts, seed)
        )
        if split is None or not missing[split]:
            left["disjoint" if split is None else "beyond", split, pair.set] += 1
            misses += 1
            if misses > max_misses:
                lacking = next(s for s in SPLITS if missing.get(s))
                raise PairsError(
                    f"problem {problem.name!r}: no pair fell to split {lacking!r} in {max_misses} "
                    f"draws; its domain is too small for splits {dict(counts)}; ask for fewer "
                    f"splits (pairs.{lacking}: 0)"
                    + (
                        f", or name less in pairs.disjoint ({', '.join(disjoint)})"
                        if disjoint
                        else ""
                    )
                )
            continue
        misses = 0
        missing[split] -= 1
        pairs.append(replace(pair, split=split))
    return PairSample(tuple(pairs), tuple(LeftOutCount(*key, pairs=n) for key, n in left.items()))


def _draw(problem: Problem, variables: tuple[str, ...], index: int, rng: random.Random) -> Pair:
    """Draws the next pair.

    Raises:
        PairsError: the problem's own code raised; the text says where and what.
    """
    try:
        base, source = problem.sample(rng)
        return _make_pair(problem, variables, index, base, source)
    except RaysearchError:
        raise
    except (Exception, SystemExit) as e:
        at = traceback.extract_tb(e.__traceback__)[-1]
        raise PairsError(
            f"problem {problem.name!r}: {at.name} raised {type(e).__name__}: {e} ({at.filename}, "
            f"line {at.lineno})"
        ) from e


def _answer(problem: Problem, value: Value) -> str:
    text = problem.answer(value)
    if not isinstance(text, str) or not text:
        raise PairsError(
            f"problem {problem.name!r}: answer({value!r}) is {text!r}; it must be the text that "
            f"follows, not empty"
        )
    return text


def _make_pair(
    problem: Problem, variables: tuple[str, ...], index: int, base: Setting, source: Setting
) -> Pair:
    model = problem.model
    base, source = model.run(base), model.run(source)
    return Pair(
        index=index,
        base=problem.render(base),
        sources={ONE_SOURCE: problem.render(source)},
        answers={
            "base": _answer(problem, base[model.output]),
            ONE_SOURCE: _answer(problem, source[model.output]),
        },
        counterfactual={
            v: _answer(problem, model.interchange(base, {v: source})) for v in variables
        },
        split="test",
        set=problem.set_of(base, source) if problem.set_of else None,
        choices=_choices(problem, base, source),
        values={v: {"base": _number(base[v]), ONE_SOURCE: _number(source[v])} for v in variables},
    )


def _number(value: Value) -> int:
    """Returns a number for a value, the same wherever the value is met."""
    return int.from_bytes(hashlib.sha256(repr(value).encode()).digest()[:7])


def _choices(problem: Problem, *settings: Setting) -> tuple[str, ...]:
    if problem.choices is None:
        return ()
    return tuple(
        dict.fromkeys(
            _answer(problem, value) for values in settings for value in problem.choices(values)
        )
    )


def _split_by_content(pair: Pair, counts: Mapping[Split, int], seed: int) -> Split:
    return split_of((pair.base.content, *(s.content for s in pair.sources.values())), counts, seed)


def _split_by_values(
    pair: Pair, variables: Sequence[str], counts: Mapping[Split, int], seed: int
) -> Split | None:
    """Returns the split of all values of `variables`; None if they belong to several."""
    inputs = (pair.base, *pair.sources.values())
    values = {(v, repr(i.values[v])) for i in inputs for v in variables}
    splits = {split_of((f"{v}={value}",), counts, seed) for v, value in values}
    return splits.pop() if len(splits) == 1 else None


def split_of(contents: Sequence[str], counts: Mapping[Split, int], seed: int) -> Split:
    """Returns the split of a (base, sources), by a hash of its inputs' contents, in the ratio of
    `counts`.

    This divides the domain before anything is drawn, and needs no list of it.
    """
    return split_of_digest(digest_of(contents, seed), counts)


def digest_of(contents: Sequence[str], seed: int) -> bytes:
    """Returns 32 bytes that identify a (base, sources) by its inputs' contents."""
    return hashlib.sha256("\x00".join((str(seed), *contents)).encode()).digest()


def split_of_digest(digest: bytes, counts: Mapping[Split, int]) -> Split:
    """Returns the split of a digest, in the ratio of `counts`."""
    at = int.from_bytes(digest[:8], "big") / 2**64 * sum(counts.values())
    for split in SPLITS:
        at -= counts.get(split, 0)
        if at < 0:
            return split
    return next(s for s in reversed(SPLITS) if counts.get(s, 0))
