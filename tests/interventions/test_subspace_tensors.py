"""Saved subspaces: what is loaded computes what was saved; tensors that do not fit are refused in
one line."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from raysearch import SavedIntervention, load_intervention, save_intervention
from raysearch.core.hypothesis import Intervention, Site, Subspace, Unit
from raysearch.errors import StoreError
from raysearch.interventions.subspace_tensors import tensors_of
from tests.engine.featurizer_worlds import NAMED, made, near, pair

WIDTH = 12
SITE = Site(1, "residual", "country")


def _of(subspace: Subspace) -> Intervention:
    return Intervention((Unit(SITE, subspace),), variable="country", fit="f" * 64)


def _saved(name: str, **changes: Any) -> SavedIntervention:
    featurizer = made(name, WIDTH, 0)
    featurizer.harden()
    return SavedIntervention(
        _of(NAMED[name]), {**tensors_of(featurizer), **changes}, variable="country"
    )


@pytest.mark.parametrize(
    "name", [name for name, one in NAMED.items() if one.featurizer != "identity"]
)
def test_a_loaded_subspace_computes_what_the_saved_one_does(name: str, tmp_path: Path) -> None:
    featurizer = made(name, WIDTH, 0)
    featurizer.harden()
    save_intervention(
        _of(NAMED[name]), tmp_path, tensors=tensors_of(featurizer), variable="country"
    )
    loaded = load_intervention(tmp_path)
    assert (loaded.intervention.fit, loaded.intervention.variable) == ("f" * 64, "country")
    assert loaded.featurizer is not None
    assert type(loaded.featurizer) is type(featurizer)
    base, source = pair(WIDTH, 1)
    with torch.no_grad():
        # Near, not equal: of an autoencoder only the kept features are saved, and fewer terms are
        # summed.
        assert near(
            loaded.featurizer.interchange(base, source), featurizer.interchange(base, source)
        )
    text = (tmp_path / "README.md").read_text()
    assert f"- {featurizer.name}: " in text
    assert 'model.swap(base, source, saved, position={"country": "its words"})' in text


@pytest.mark.parametrize("name", ["identity", "coordinates"])
def test_a_plain_intervention_has_no_featurizer(name: str) -> None:
    assert SavedIntervention(_of(NAMED[name])).featurizer is None


def _without(*names: str) -> SavedIntervention:
    saved = _saved("das")
    return replace(saved, tensors={n: t for n, t in saved.tensors.items() if n not in names})


@pytest.mark.parametrize(
    ("saved", "says"),
    [
        (_without("width"), "'width' is missing or no number"),
        (_saved("das", width=torch.tensor(1.5)), "'width' is missing or no number"),
        (_without("directions"), "'directions' is missing"),
        (_saved("das", width=torch.tensor(11)), "vectors of 12, said to be for 11"),
        (_saved("das", directions=torch.ones(WIDTH, 2)), "not orthonormal"),
        (_saved("das", directions=torch.eye(WIDTH)[:, :3]), "tensors of 3 features, said to be of "
                                                            "2"),
        (replace(_saved("das"), intervention=_of(Subspace("mask"))), "(mask)"),
        (replace(_saved("das"), intervention=_of(Subspace("nosuch"))), "'nosuch' is no featurizer"),
        (
            replace(_saved("das"), intervention=Intervention((Unit(SITE), Unit(replace(SITE, layer=2), Subspace("das", 2))))),
            "has 2 units",
        ),
    ],
)  # fmt: skip
def test_tensors_that_do_not_fit_the_subspace_are_one_line(
    saved: SavedIntervention, says: str
) -> None:
    with pytest.raises(StoreError) as error:
        _ = saved.featurizer
    assert says in str(error.value)
    assert saved.intervention.id in str(error.value)
    assert len(str(error.value).splitlines()) == 1
