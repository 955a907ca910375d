"""How a job's problem is found: a module of ours or yours with a function `problem`, or "my_file.py:name".

Invariants: whatever is wrong with the user's code or options is a JobError that names it; the user's own exception stays chained.
"""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raysearch.causal import Problem
from raysearch.errors import JobError, RaysearchError
from raysearch.user_code import module_of


def load_problem(use: str, options: Mapping[str, Any]) -> Problem:
    """The problem that `use` names, made with `options`.

    `use`: "package.module" (its function `problem`), "package.module:name" or "/path/file.py:name"; the name is a Problem or a
    function that returns one. Raises: JobError.
    """
    place, _, name = use.rpartition(":") if ":" in use else (use, "", "problem")
    ready = _ready()
    near = next((name for name in ready if name.endswith(f".{place}")), "one of " + ", ".join(ready))
    module = module_of(place, "problem.use", f"{near}, or my_file.py:problem")
    if not hasattr(module, name):
        raise JobError(
            f"problem.use: {place} has no {name!r}; give file.py:name of a Problem or of a function that returns one"
        )
    made = getattr(module, name)
    if isinstance(made, Problem):
        if options:
            raise JobError(f"problem.options: {use} takes no options; it got {', '.join(options)}")
        return made
    if not callable(made):
        raise JobError(
            f"problem.use: {use} is {type(made).__name__}; it must be a Problem or a function that returns one"
        )
    return _call(use, made, options)


def _call(use: str, function: Any, options: Mapping[str, Any]) -> Problem:
    allowed = [
        n for n, p in inspect.signature(function).parameters.items() if p.kind is not inspect.Parameter.VAR_KEYWORD
    ]
    try:
        inspect.signature(function).bind(**options)
    except TypeError as e:
        raise JobError(f"problem.options: {use}: {e}; it takes {', '.join(allowed) or 'none'}") from e
    try:
        problem = function(**options)
    except RaysearchError:
        raise
    except Exception as e:
        raise JobError(f"problem.use: {use} raised {type(e).__name__}: {e}") from e
    if not isinstance(problem, Problem):
        raise JobError(f"problem.use: {use} returned {type(problem).__name__}; it must return a raysearch.Problem")
    return problem


def _ready() -> list[str]:
    folder = Path(__file__).parent
    return [
        f"raysearch.problems.{p.stem}"
        for p in sorted(folder.glob("*.py"))
        if p.stem not in ("__init__", "files", "frame", "json_line", "load", "options", "tensor_file")
    ]
