"""Swaps with a saved intervention in the notebook: the formula of the subspace, by plain hooks."""

import pytest
import torch
from torch import Tensor

import raysearch as rs
from raysearch.core.hypothesis import Intervention, Site, Subspace, Unit
from raysearch.errors import JobError, PairsError, PositionError, StoreError
from raysearch.interventions.subspace_tensors import tensors_of
from tests.engine.featurizer_worlds import NAMED, made
from tests.engine.worlds import loaded, model_of, word_tokenizer

BASE, SOURCE = "w1 w2 w3 w4", "w1 w2 w5 w4"
WIDTH, LAYER, TOKEN = 32, 2, 3


@pytest.fixture
def tiny() -> rs.Model:
    return rs.Model(loaded(model_of("llama"), word_tokenizer(before=True)), "tiny")


def _saved(name: str, width: int = WIDTH, position: str = "here") -> rs.SavedIntervention:
    featurizer = made(name, width, 3)
    featurizer.harden()
    unit = Unit(Site(LAYER, "residual", position), NAMED[name])
    return rs.SavedIntervention(
        Intervention((unit,), variable="v"), tensors_of(featurizer), variable="v"
    )


def _formula(name: str, base: Tensor, source: Tensor, tensors: dict[str, Tensor]) -> Tensor:
    """Written out here, apart from the featurizers."""
    if name == "mask":
        return torch.where(tensors["theta"] > 0, source, base)
    directions = tensors["directions"]
    if name == "pca":
        change = ((source - base) / tensors["scale"]) @ directions @ directions.T
        return base + change * tensors["scale"]
    return base + (source - base) @ directions @ directions.T


@torch.no_grad()
def _by_hooks(model: rs.Model, name: str, tensors: dict[str, Tensor]) -> Tensor:
    network = model._network.model
    block = network.model.layers[LAYER]
    kept: dict[str, Tensor] = {}
    handle = block.register_forward_hook(lambda m, i, o: kept.update(seen=o[0, TOKEN].clone()))
    network(torch.tensor([model._texts[SOURCE].ids]))
    handle.remove()

    def put(_m: object, _i: object, out: Tensor) -> Tensor:
        out = out.clone()
        out[0, TOKEN] = _formula(name, out[0, TOKEN], kept["seen"], tensors)
        return out

    handle = block.register_forward_hook(put)
    logits: Tensor = network(torch.tensor([model._texts[BASE].ids])).logits[0, -1]
    handle.remove()
    return logits


@pytest.mark.parametrize("name", ["das", "mask", "pca", "svd"])
def test_a_swap_with_a_saved_subspace_is_its_formula_by_plain_hooks(
    tiny: rs.Model, name: str
) -> None:
    saved = _saved(name)
    swap = tiny.swap(BASE, SOURCE, saved, TOKEN)
    logits = _by_hooks(tiny, name, dict(saved.tensors))
    assert swap.after == pytest.approx(swap.answers.difference(logits), abs=1e-4)
    assert swap.after != pytest.approx(swap.before, abs=1e-3)
    assert name in swap.where
    assert str(
        tiny.swap(BASE, SOURCE, saved, {"here": "w3"}, source_position={"here": "w5"})
    ) == str(swap)


def test_a_saved_whole_vector_is_the_plain_swap_and_last_needs_no_position(tiny: rs.Model) -> None:
    whole = rs.SavedIntervention(Intervention((Unit(Site(1, "head", "last", 2)),)))
    assert str(tiny.swap(BASE, SOURCE, whole)) == str(
        tiny.swap(BASE, SOURCE, 1, component="head", head=2)
    )
    two = Intervention((Unit(Site(1, "residual", "here")), Unit(Site(2, "residual", "last"))))
    swap = tiny.swap(
        BASE, SOURCE, rs.SavedIntervention(two), {"here": "w3"}, source_position={"here": "w5"}
    )
    words = tiny.tokens(BASE)
    assert (
        swap.where
        == f"residual, layer 1, token 3 ({words[3]!r}); residual, layer 2, token 4 ({words[4]!r})"
    )


def test_what_a_saved_intervention_cannot_be_used_for_is_one_line(tiny: rs.Model) -> None:
    with pytest.raises(PositionError, match="where 'here' stands in 'w1 w2 w3 w4' is not said"):
        tiny.swap(BASE, SOURCE, _saved("das"))
    with pytest.raises(PositionError, match="it has no position 'there'; it has here"):
        tiny.swap(BASE, SOURCE, _saved("das"), {"there": 1})
    with pytest.raises(
        JobError, match="was made for vectors of 12, residual in layer 2 at 'here' has 32"
    ):
        tiny.swap(BASE, SOURCE, _saved("das", width=12), 1)
    with pytest.raises(JobError, match="names its sites; leave component and head out"):
        tiny.swap(BASE, SOURCE, _saved("das"), 1, component="head", head=1)
    with pytest.raises(StoreError, match="'width' is missing"):
        tiny.swap(BASE, SOURCE, rs.SavedIntervention(_saved("das").intervention), 1)
    two = (
        Unit(Site(1, "residual", "here"), source="a"),
        Unit(Site(2, "residual", "there"), source="b"),
    )
    with pytest.raises(
        PositionError, match="has the positions here, there; give position as a mapping"
    ):
        tiny.swap(BASE, SOURCE, rs.SavedIntervention(Intervention(two)), 1)
    with pytest.raises(PairsError, match="take from a, b; a swap has one source"):
        tiny.swap(BASE, SOURCE, rs.SavedIntervention(Intervention(two)), {"here": 1, "there": 2})


def test_a_random_subspace_without_tensors_is_refused(tiny: rs.Model) -> None:
    drawn = Intervention((Unit(Site(1, "residual", "last"), Subspace("random", 4)),))
    with pytest.raises(StoreError, match="the tensors do not fit its subspace"):
        tiny.swap(BASE, SOURCE, rs.SavedIntervention(drawn))
