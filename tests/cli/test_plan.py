"""The words of a plan."""

import pytest

from raysearch.cli.plan import _sites_words
from raysearch.search.hypothesis import Subspace
from raysearch.search.space import Grid


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        (Grid("residual", (0, 1), (None,), ("country", "last")), "residual at country, last"),
        (Grid("head", (0, 1), tuple(range(9)), ("last",)), "head 0..8 at last"),
        (Grid("key", (0,), (0, 2), ("last",)), "key 0, 2 at last"),
        (Grid("query", (0,), (4,), ("last",)), "query 4 at last"),
        (
            Grid("residual", (0,), (None,), ("a",), (Subspace(), Subspace(coordinates=(1,)))),
            "residual at a, 2 subspaces each",
        ),
    ],
)
def test_a_grid_is_told_as_component_heads_and_positions(grid: Grid, words: str) -> None:
    assert _sites_words(grid) == words
