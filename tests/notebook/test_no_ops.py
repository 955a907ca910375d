"""What changes nothing is never called a change, whatever answers the user gives; and an answer
that the model does not say is told."""

import pytest
import torch

import raysearch as rs
from raysearch.core.hypothesis import Intervention, Site, Unit
from raysearch.interventions.subspace_tensors import tensors_of
from tests.engine.featurizer_worlds import NAMED, made
from tests.engine.worlds import loaded, model_of, word_tokenizer

BASE, SOURCE = "w1 w2 w3 w4", "w1 w2 w5 w4"
GIVEN = [None, (" w6", " w7"), (" w7", " w7"), (" w1", " w2")]


@pytest.fixture(scope="module", params=["llama", "gpt2", "gpt_neox"])
def tiny(request: pytest.FixtureRequest) -> rs.Model:
    return rs.Model(loaded(model_of(request.param), word_tokenizer(before=True)), "tiny")


def says(model: rs.Model, text: str) -> int:
    return int(model._network.model(torch.tensor([model._texts[text].ids])).logits[0, -1].argmax())


@pytest.mark.parametrize("answers", GIVEN)
def test_a_text_swapped_into_itself_changes_nothing_at_any_place(
    tiny: rs.Model, answers: tuple[str, str] | None
) -> None:
    for layer in range(2):
        for at in range(4):
            swap = tiny.swap(BASE, BASE, layer, at, answers=answers)
            assert not swap.changed
            assert swap.before == swap.after
            assert f"{swap.token!r} stays" in str(swap)
            assert swap.token_id == says(tiny, BASE)
    scan = tiny.scan(BASE, BASE, answers=answers)
    assert not any(map(any, scan.changed))
    assert not any(scan.table["changed"].to_pylist())
    assert "*" not in str(scan).rpartition("\n*")[0]
    assert not [t for t in scan.heatmap().axes[0].texts if t.get_text()]


def test_what_lies_before_the_texts_part_changes_nothing(tiny: rs.Model) -> None:
    scan = tiny.scan(BASE, SOURCE, answers=(" w6", " w7"))
    differs = next(i for i, t in enumerate(scan.tokens) if "\n" in t)
    assert not any(any(cells[:differs]) for cells in scan.changed)
    assert all(d == scan.before for cells in scan.differences for d in cells[:differs])


@pytest.mark.parametrize("answers", GIVEN)
def test_a_change_is_one_of_what_the_model_says_by_itself(
    tiny: rs.Model, answers: tuple[str, str] | None
) -> None:
    scan = tiny.scan(BASE, "w9 w8 w7 w6", answers=answers)
    own, words = says(tiny, BASE), scan.next_tokens
    rows = zip(scan.next_ids, scan.changed, strict=True)
    assert all([t != own for t in ids] == list(changed) for ids, changed in rows)
    swap = tiny.swap(BASE, "w9 w8 w7 w6", 1, -1, answers=answers)
    assert (swap.token, swap.changed) == (words[1][-1], scan.changed[1][-1])
    assert swap.changed  # the last layer's last token is all that is said
    assert f"{tiny._word(own)!r} -> {swap.token!r}" in str(swap)


def test_an_answer_that_the_model_does_not_say_is_told_with_what_it_says(tiny: rs.Model) -> None:
    texts = (f"w{i} w2 w3" for i in range(1, 30))
    text, own = next((t, w) for t in texts if (w := tiny._word(says(tiny, t))).startswith(" "))
    other = next(w for w in (" w6", " w7") if w != own)
    told = f"by itself the model says {own!r} after the base, not the given {other!r}"
    swap, scan = (
        tiny.swap(text, text, 0, answers=(other, own)),
        tiny.scan(text, text, answers=(other, own)),
    )
    for shown in (str(swap), str(scan), scan.heatmap().axes[0].get_title(loc="left")):
        assert told in shown
        assert "after the source" not in shown
    assert "by itself" not in str(tiny.swap(text, text, 0, answers=(own, own)))
    assert "by itself" not in str(tiny.swap(text, text, 0))


@pytest.mark.parametrize("answers", GIVEN)
def test_a_saved_intervention_from_the_text_itself_changes_nothing(
    tiny: rs.Model, answers: tuple[str, str] | None
) -> None:
    sites = Site(1, "residual", "last"), Site(0, "residual", "x")
    featurizer = made("pca", tiny._network.width, 3)
    featurizer.harden()
    saved = [
        rs.SavedIntervention(Intervention((Unit(sites[0]),)), variable="v"),
        rs.SavedIntervention(Intervention(tuple(map(Unit, sites))), variable="v"),
        rs.SavedIntervention(
            Intervention((Unit(sites[0], NAMED["pca"]),), variable="v"),
            tensors_of(featurizer),
            variable="v",
        ),
    ]
    for one in saved:
        named = {"x": 1} if len(one.intervention.units) == 2 else None
        swap = tiny.swap(BASE, BASE, one, named, answers=answers)
        assert not swap.changed
        assert swap.before == swap.after


def test_a_tie_that_rounding_breaks_is_no_change(tiny: rs.Model) -> None:
    """Two tokens of one logit: which is first is a matter of rounding, and a swap of a text into
    itself does not touch it."""
    head = tiny._network.model.get_output_embeddings()
    own = says(tiny, BASE)
    kept = head.weight.detach().clone()
    other = (own + 1) % len(kept)
    try:
        with torch.no_grad():
            head.weight[other] = head.weight[own] * (1 + 1e-7)
        scan = tiny.scan(BASE, SOURCE)
        differs = next(i for i, t in enumerate(scan.tokens) if "\n" in t)
        assert not any(any(cells[:differs]) for cells in scan.changed)
    finally:
        with torch.no_grad():
            head.weight.copy_(kept)
