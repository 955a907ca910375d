"""Arbitrary labels are fixed by a run's first pairs: further ones change neither scores nor targets."""

from dataclasses import replace
from pathlib import Path

from raysearch.core.controls import labels_of
from raysearch.core.events import Encoded
from raysearch.core.hypothesis import Intervention, Site, Subspace, Unit
from raysearch.engine.execution.answer_scores import Scoring
from raysearch.engine.training.seeds import targets_of
from raysearch.storage.local import LocalFolder
from raysearch.store.pairs_table import read_encoded, write_pairs
from tests.store.books import ENCODED, PAIRS

FURTHER = tuple(
    replace(e, index=4 + e.index, counterfactual={"country": (1 + e.index,)}, added=1)
    for e in ENCODED
)
UNIT = Unit(Site(0, "residual", "last"), Subspace("das", 2))
RELABELLED = Intervention((UNIT,), variable="country", control="arbitrary_labels")
FIRST = tuple(replace(e, counterfactual={"country": e.counterfactual["country"]}) for e in ENCODED)


def _scores(pairs: tuple[Encoded, ...], of: tuple[Encoded, ...]) -> object:
    scoring = Scoring(("logit_difference",), pairs)
    ids = scoring.ids(p.base for p in of)
    read = [(1.0, 0.0, *(float(i * i) for i in row)) for row in ids]
    return scoring.scores(scoring.columns(of), read, RELABELLED)


def test_scores_under_arbitrary_labels_are_those_of_before_the_continuation() -> None:
    assert _scores((*FIRST, *FURTHER), FIRST) == _scores(FIRST, FIRST)
    plain = _scores((*FIRST, *FURTHER), FURTHER)
    base = [e.answers["base"][0] ** 2 for e in FURTHER]
    own = tuple(float((1 + i) ** 2 - b) for i, b in enumerate(base))
    assert plain == {"logit_difference": {"country": own}}, "a new answer keeps its own label"


def test_targets_of_fits_are_those_of_before_the_continuation() -> None:
    assert targets_of([RELABELLED], FIRST, (*FIRST, *FURTHER)) == targets_of(
        [RELABELLED], FIRST, FIRST
    )


def test_pairs_that_are_read_back_say_which_continuation_added_them(tmp_path: Path) -> None:
    run = LocalFolder(tmp_path)
    pairs = [replace(p, added=p.index % 2) for p in PAIRS]
    encoded = [replace(e, added=e.index % 2) for e in ENCODED]
    write_pairs(run, pairs, encoded)
    assert [e for e, _, _ in read_encoded(run)] == encoded
    assert labels_of(encoded, "country").keys() == {(8,), (10,)}
