"""A saved intervention in pyvene: what its `load` makes of our folder computes what we compute."""

import copy
import re
from pathlib import Path

import pytest
import pyvene
import torch

import raysearch as rs
from raysearch.core.hypothesis import Intervention, Site, Subspace, Unit
from raysearch.errors import JobError
from raysearch.interventions.pyvene import save_pyvene
from raysearch.interventions.subspace_tensors import tensors_of, tensors_of_width
from tests.engine.featurizer_worlds import NAMED, made
from tests.engine.worlds import loaded, model_of, word_tokenizer

BASE, SOURCE = "w1 w2 w3 w4", "w1 w2 w5 w4"
WIDTH, TOKEN = 32, 3


def _saved(name: str, component: str = "residual") -> rs.SavedIntervention:
    site = Site(2, component, "here")
    if name in ("whole", "coordinates"):
        chosen = None if name == "whole" else (3, 30)
        plain = Intervention((Unit(site, Subspace(coordinates=chosen)),))
        return rs.SavedIntervention(plain, {} if chosen is None else tensors_of_width(WIDTH))
    featurizer = made(name, WIDTH, 3)
    featurizer.harden()
    return rs.SavedIntervention(
        Intervention((Unit(site, NAMED[name]),), variable="v"), tensors_of(featurizer)
    )


@pytest.mark.parametrize(
    ("name", "component"),
    [
        ("das", "residual"), ("svd", "mlp_output"), ("mask", "attention_output"), ("boundless_rank", "block_input"),
        ("whole", "residual"), ("coordinates", "residual"),
    ],
)  # fmt: skip
def test_what_pyvene_loads_computes_what_we_compute(
    name: str, component: str, tmp_path: Path
) -> None:
    saved = _saved(name, component)
    save_pyvene(saved, tmp_path)
    ours = rs.Model(loaded(model_of("llama"), word_tokenizer(before=True)), "tiny")
    swap = ours.swap(BASE, SOURCE, saved, TOKEN)
    theirs = pyvene.IntervenableModel.load(str(tmp_path), copy.deepcopy(model_of("llama")))
    base, source = ({"input_ids": torch.tensor([ours._texts[text].ids])} for text in (BASE, SOURCE))
    with torch.no_grad():
        _, out = theirs(base, [source], {"sources->base": TOKEN})
    assert swap.answers.difference(out.logits[0, -1]) == pytest.approx(swap.after, abs=1e-4)
    assert swap.after != pytest.approx(swap.before, abs=1e-3)


@pytest.mark.parametrize(
    ("saved", "says"),
    [
        (_saved("boundless"), "lets parts of features through"),
        (_saved("pca"), "standardised"),
        (_saved("whole", "query"), "query is not among those that we write"),
        (
            rs.SavedIntervention(Intervention((Unit(Site(2, "residual", "here")),), kind="zero")),
            "it is zero",
        ),
    ],
)
def test_what_pyvene_cannot_express_is_refused_in_one_line(
    saved: rs.SavedIntervention, says: str, tmp_path: Path
) -> None:
    with pytest.raises(JobError, match=re.escape(says)):
        save_pyvene(saved, tmp_path / "it")
    assert not (tmp_path / "it").exists()
