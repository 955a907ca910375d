"""Each list of names stands once: what implements it, and what tells of it, follows from the list."""

import ast
import math
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import pytest

import raysearch
from raysearch.cli.flags import pool
from raysearch.core import control_kinds, option_names
from raysearch.core.events import Encoded
from raysearch.engine.execution.answer_scores import Scoring
from raysearch.engine.execution.predict import NEAR_TIE
from raysearch.engine.execution.selfcheck import TRIED
from raysearch.engine.loading.loaded_model import DTYPES
from raysearch.engine.patching.operations import FORMULAS
from raysearch.job.schema import job_schema
from raysearch.proposers.registry import READY, names
from raysearch.report.control_comparison import COLUMNS
from raysearch.report.labels import score_label
from raysearch.store.schemas import VERDICTS

LISTS = {
    option_names.Compare: option_names.COMPARISONS,
    option_names.OperationName: option_names.OPERATIONS,
    option_names.PairKinds: option_names.PAIR_KINDS,
    option_names.ScoreName: option_names.SCORES,
    option_names.TestedScore: option_names.TESTED_SCORES,
    control_kinds.Control: control_kinds.JOB_CONTROLS,
    control_kinds.ReadControl: control_kinds.HOLDOUT_CONTROLS,
}
"""By the type of a name, what each name means."""


def keys(path: str) -> dict[str, Any]:
    """The JSON Schema of a key of the job, such as `AnswerKeys.compare`."""
    schema = job_schema()
    model, _, key = path.partition(".")
    found: dict[str, Any] = (schema["$defs"][model] if key else schema)["properties"][key or model]
    return found


@pytest.mark.parametrize("names", LISTS)
def test_each_name_has_its_meaning(names: Any) -> None:
    assert get_args(names) == tuple(LISTS[names])


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("AnswerKeys.compare", option_names.COMPARISONS),
        ("AnswerKeys.scores", option_names.SCORES),
        ("PairsKeys.kinds", option_names.PAIR_KINDS),
        ("UnitKeys.operation", option_names.OPERATIONS),
        ("TestKeys.score", option_names.TESTED_SCORES),
        ("controls", control_kinds.job_control_meanings()),
    ],
)
def test_a_key_takes_the_names_of_its_list_and_says_what_they_mean(path: str, words: Any) -> None:
    key = keys(path)
    takes = key.get("items") or key.get("anyOf", [key])[-1]  # "auto" stands before the names
    assert takes["enum"] == list(words)
    assert option_names.meanings_text(words) in key["description"]


def test_what_implements_a_list_has_every_name_of_it() -> None:
    pair = Encoded(0, (5,), {}, {}, {}, {"base": (1,)}, {"x": (2,)})
    scoring = Scoring(option_names.SCORES, [pair])
    found = scoring.scores(scoring.columns([pair]), [(0.6, 1.0, 0.5, -0.5)])
    assert found is not None
    scores = {name: found[name]["x"] for name in option_names.SCORES}
    assert all(math.isfinite(value) for (value,) in scores.values())
    assert len(set(scores.values())) == len(scores)
    assert set(FORMULAS) == set(option_names.OPERATIONS) >= set(option_names.OTHER_BASES)
    assert set(DTYPES) == set(NEAR_TIE) == set(TRIED) == set(get_args(option_names.Dtype))
    for score in option_names.TESTED_SCORES:
        assert score_label({"test": {"score": score}}).counted == (score == "matches")
    assert set(COLUMNS.values()) <= set(VERDICTS.names)
    assert pool(lambda: 0).__click_params__[0].type.choices == get_args(option_names.PoolName)


def test_every_proposer_that_is_ready_says_what_it_is() -> None:
    assert names()[: len(READY)] == list(READY)
    assert all(made.description and made.name == name for name, made in READY.items())


def test_what_a_control_changes_is_asked_of_its_kind_and_never_of_its_name() -> None:
    """So that a control that is added is added in one place; tables name columns for them."""
    kinds = {**control_kinds.HOLDOUT_CONTROLS, **control_kinds.JOB_CONTROLS}
    for kind in kinds.values():
        assert sum(value is True for value in asdict(kind).values()) == 1, kind
    root = Path(raysearch.__file__).parent
    named = {
        file.relative_to(root).as_posix()
        for file in root.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and node.value in kinds
    }
    assert named == {"core/control_kinds.py", "store/table_rows.py"}


def test_no_list_of_names_stands_twice() -> None:
    found = defaultdict(set)
    root = Path(raysearch.__file__).parent
    for file in sorted(root.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "Literal":
                named = frozenset(ast.literal_eval(node.slice)) if _is_tuple(node) else frozenset()
                if len(named) > 2:
                    found[named].add(str(file.relative_to(root)))
    assert {tuple(sorted(n)): f for n, f in found.items() if len(f) > 1} == {}


def _is_tuple(node: ast.Subscript) -> bool:
    return isinstance(node.slice, ast.Tuple) and all(
        isinstance(part, ast.Constant) and isinstance(part.value, str) for part in node.slice.elts
    )
