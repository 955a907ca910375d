"""Rows of the tables: what the units of a hypothesis share is said, what they do not is null."""

import json

import pytest

from raysearch.core.hypothesis import Hypothesis, Intervention, Site, Subspace, Unit
from raysearch.core.records import Proposed
from raysearch.store.table_rows import hypothesis_row

SIXTEEN = Subspace(coordinates=tuple(range(16)))
HEAD = Unit(Site(9, "head", "last", 3), SIXTEEN)


@pytest.mark.parametrize(
    ("units", "says"),
    [
        ((Unit(Site(9, "residual", "last")),), (9, "residual", None, "last", None)),
        ((HEAD,), (9, "head", 3, "last", 16)),
        ((HEAD, Unit(Site(9, "head", "last", 4), SIXTEEN)), (9, "head", None, "last", 16)),
        ((HEAD, Unit(Site(10, "head", "country", 3), SIXTEEN)), (None, "head", 3, None, 16)),
        ((HEAD, Unit(Site(9, "residual", "last"))), (9, None, None, "last", None)),
        ((HEAD, Unit(Site(9, "head", "last"))), (9, "head", None, "last", None)),
    ],
)
def test_a_row_says_what_all_units_share(units: tuple[Unit, ...], says: tuple[object, ...]) -> None:
    row = hypothesis_row(Proposed(Hypothesis("v", Intervention(units)), "exhaustive", 0))
    assert tuple(row[k] for k in ("layer", "component", "head", "position", "features")) == says


def test_the_units_are_written_down_exactly() -> None:
    unit = Unit(
        Site(1, "query", "a", 2), Subspace(coordinates=(0, 5)), Site(3, "key", "b", 1), "other"
    )
    row = hypothesis_row(Proposed(Hypothesis("v", Intervention((unit,))), "exhaustive", 0))
    assert json.loads(row["units"]) == [
        {
            "site": {"layer": 1, "component": "query", "position": "a", "head": 2},
            "subspace": {
                "featurizer": "identity",
                "features": None,
                "coordinates": [0, 5],
                "basis": None,
                "file": None,
            },
            "source_site": {"layer": 3, "component": "key", "position": "b", "head": 1},
            "source": "other",
        }
    ]
