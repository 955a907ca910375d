"""Loads a job's problem: a module with a function `problem`, or "my_file.py:name".

Invariants: an error in the user's code or options is a JobError that names it; the user's own
exception stays chained.
"""

import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

from raysearch.causal import Problem
from raysearch.errors import JobError, RaysearchError
from raysearch.plugins import entry_point, installed_plugins
from raysearch.user_code import CodeKind, find
from raysearch.visible_text import one_line

GROUP = "raysearch.problems"
"""Entry points by which installed packages add problems: `name = package.module:function`."""
_PROBLEM = re.compile(r"^def problem\(", re.MULTILINE)


def load_problem(use: str, options: Mapping[str, Any]) -> Problem:
    """Returns the problem that `use` names, made with `options`.

    Args:
        use: "package.module" (its function `problem`), "package.module:name", "/path/file.py:name",
            or an entry point of an installed package; the name is a Problem, or a function defined
            there that returns one.

    Raises:
        JobError: it is neither (found before anything is called), or it fails.
    """
    place, name, kind = named_problem(use)
    made = find(place, name, "problem.use", kind)
    if isinstance(made, Problem):
        if options:
            raise JobError(f"problem.options: {use} takes no options; it got {', '.join(options)}")
        return made
    return _call(use, made, options)


def named_problem(use: str) -> tuple[str, str, CodeKind]:
    """Returns the module or file that `use` names, the name in it, and what that may be."""
    ready, point = ready_problems(), entry_point(GROUP, use, "problem.use")
    target = use if point is None else point.value
    place, _, name = target.rpartition(":") if ":" in target else (target, "", "problem")
    near = next(
        (name for name in ready if name.endswith(f".{place}")),
        f"one of {', '.join([*ready, *installed_plugins(GROUP)])}",
    )
    kind = CodeKind(
        what="a Problem, or a function that returns one",
        would_do=f"{near}, or my_file.py:problem",
        is_one=lambda found: isinstance(found, Problem),
        is_class=lambda found: issubclass(found, Problem),
        returns="Problem",
        may_call=_returns_problem,
        ours=tuple(ready),
    )
    return place, name, kind


def _returns_problem(function: object) -> bool:
    """Says whether a function's annotation is our Problem; true if the annotation cannot be
    resolved."""
    try:
        annotation = get_type_hints(function).get("return")
    except (NameError, TypeError):
        return True
    return isinstance(annotation, type) and issubclass(annotation, Problem)


def _call(use: str, function: Any, options: Mapping[str, Any]) -> Problem:
    allowed = [
        n
        for n, p in inspect.signature(function).parameters.items()
        if p.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    try:
        inspect.signature(function).bind(**options)
    except TypeError as e:
        raise JobError(
            f"problem.options: {use}: {e}; it takes {', '.join(allowed) or 'none'}"
        ) from e
    try:
        problem = function(**options)
    except RaysearchError:
        raise
    except (Exception, SystemExit) as e:
        raise JobError(f"problem.use: {use} raised {type(e).__name__}: {one_line(e)}") from e
    if not isinstance(problem, Problem):
        raise JobError(
            f"problem.use: {use} returned {type(problem).__name__}; it must return a "
            f"raysearch.Problem"
        )
    return problem


def ready_problems() -> list[str]:
    """Returns the modules here that define a problem, without importing any."""
    folder = Path(__file__).parent
    return [
        f"raysearch.problems.{p.stem}"
        for p in sorted(folder.glob("*.py"))
        if _PROBLEM.search(p.read_text(encoding="utf-8"))
    ]
