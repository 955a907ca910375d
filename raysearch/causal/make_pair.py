"""Makes a pair of two settings of a causal model, with the counterfactual of each variable.

Invariants: an error in the problem's own code becomes a PairsError that says where it is.
"""

import hashlib
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from raysearch.causal.model import Setting, Value
from raysearch.causal.pairs import ONE_SOURCE, Input, Pair, Split
from raysearch.causal.problem import Problem
from raysearch.errors import PairsError, RaysearchError
from raysearch.visible_text import one_line


@contextmanager
def errors_of(problem: Problem) -> Iterator[None]:
    """Raises PairsError where the problem's own code raises; the text says where and what."""
    try:
        yield
    except RaysearchError:
        raise
    except (Exception, SystemExit) as e:
        at = traceback.extract_tb(e.__traceback__)[-1]
        raise PairsError(
            f"problem {problem.name!r}: {at.name} raised {type(e).__name__}: {one_line(e)} "
            f"({at.filename}, line {at.lineno})"
        ) from e


def _answer(problem: Problem, value: Value) -> str:
    text = problem.answer(value)
    if not isinstance(text, str) or not text:
        raise PairsError(
            f"problem {problem.name!r}: answer({value!r}) is {text!r}; it must be the text that "
            f"follows, not empty"
        )
    return text


def make_pair(
    problem: Problem,
    variables: tuple[str, ...],
    index: int,
    base: Setting,
    source: Setting,
    split: Split = "test",
) -> Pair:
    """Returns the pair of two settings of the input variables.

    Raises:
        PairsError: an answer is no text.
    """
    model = problem.model
    base, source = model.run(base), model.run(source)
    return Pair(
        index=index,
        base=_rendered(problem, base),
        sources={ONE_SOURCE: _rendered(problem, source)},
        answers={
            "base": _answer(problem, base[model.output]),
            ONE_SOURCE: _answer(problem, source[model.output]),
        },
        counterfactual={
            v: _answer(problem, model.interchange(base, {v: source})) for v in variables
        },
        split=split,
        set=problem.set_of(base, source) if problem.set_of else None,
        choices=_choices(problem, base, source),
        values={v: {"base": _number(base[v]), ONE_SOURCE: _number(source[v])} for v in variables},
    )


def _rendered(problem: Problem, setting: Setting) -> Input:
    """Returns the input of a setting, with its values, which a problem need not give."""
    found = problem.render(setting)
    return found if found.values else replace(found, values=setting)


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
