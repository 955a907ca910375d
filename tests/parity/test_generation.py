"""Generation: the tokens that follow a prompt under intervention, greedy or sampled, are those of
`IntervenableModel.generate`."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from raysearch.core.events import Ids
from raysearch.engine.networks.network import LanguageModel
from raysearch.engine.networks.point import Point
from raysearch.engine.patching.generate import Sampling, generate
from raysearch.engine.patching.operations import Operation, Zero
from raysearch.engine.patching.rows import Patch, Row
from tests.parity.sides import (
    EVERYWHERE,
    FAMILIES,
    INTERCHANGE,
    Case,
    Name,
    cases,
    ids,
    names,
    ours,
    pyvene,
    tensor,
    their_model,
)

NEW = 6
RESIDUAL = EVERYWHERE["residual"]

GENERATING = tuple(f for f in FAMILIES if f != "gemma2")
"""Random Gemma 2, whose scaled embeddings are tied, says its last token again whatever one does to
it: it would compare nothing."""

each_family = pytest.mark.parametrize("family", GENERATING)


@each_family
def test_without_intervention_what_is_generated_is_what_pyvene_generates(family: str) -> None:
    made = cases(family, RESIDUAL, 4, "left alone")
    kept = [
        by_pyvene(family, [c.representation(RESIDUAL)], c, [c], output_original_output=True)[0]
        for c in made
    ]
    assert [by_us(family, Row(c.base)) for c in made] == kept


@pytest.mark.slow_unless(family=["llama"])
@pytest.mark.slow_unless(component=["residual"])
@each_family
@pytest.mark.parametrize(
    "component", ["residual", "block_input", "attention_output", "mlp_activation", "head"]
)
def test_after_an_interchange_in_the_prompt_what_is_generated_is_what_pyvene_generates(
    family: str, component: str
) -> None:
    """Of one token or several, whole or in coordinates; new tokens are left alone."""
    name, side = names(family)[component], ours(family)
    made = [at_end(c) for c in cases(family, name, 6, "generate")]
    made[1::2] = [replace(c, features=tuple(range(1, side.width(name), 2))) for c in made[1::2]]
    rows = [c.row(side, name) for c in made]
    got = [by_us(family, row) for row in rows]
    assert got == [by_pyvene(family, [c.representation(name)], c, [c])[1] for c in made]
    assert got != [by_us(family, Row(c.base)) for c in made], (
        "no intervention changed a token: nothing was compared"
    )


@pytest.mark.slow_unless(family=["gpt2", "llama"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "mistral", "qwen2"])
@pytest.mark.parametrize("component", ["head", "value"])
def test_after_an_interchange_of_heads_in_the_prompt_what_is_generated_is_what_pyvene_generates(
    family: str, component: str
) -> None:
    name, side = names(family)[component], ours(family)
    made = [replace(at_end(c), heads=(0, 1)) for c in cases(family, name, 6, "heads", tokens=(2,))]
    got = [by_us(family, c.row(side, name)) for c in made]
    assert got == [by_pyvene(family, [c.representation(name)], c, [c])[1] for c in made]
    assert got != [by_us(family, Row(c.base)) for c in made], (
        "no intervention changed a token: nothing was compared"
    )


@pytest.mark.slow_unless(family=["gpt2", "llama"])
@each_family
def test_after_several_units_in_the_prompt_what_is_generated_is_what_pyvene_generates(
    family: str,
) -> None:
    """Two interchanges from sources of their own, and a zero."""
    side, rng = ours(family), random.Random(family)
    wanted, rows = [], []
    for seed in range(3):
        base = ids(rng, 6)
        first, second = (
            replace(at_end(c), base=base, tokens=(5,))
            for c in cases(family, RESIDUAL, 2, seed, (1,))
        )
        third = replace(first, layer=0, tokens=(2,))
        mlp = names(family)["mlp_output"]
        units: list[tuple[Name, Case, Operation, type]] = [
            (RESIDUAL, replace(first, layer=0), INTERCHANGE, pyvene.VanillaIntervention),
            (mlp, replace(second, layer=1), INTERCHANGE, pyvene.VanillaIntervention),
            (mlp, third, Zero(), pyvene.ZeroIntervention),
        ]
        rows.append(
            Row(base, tuple(c.patch(side, n, kind, Row(c.source)) for n, c, kind, _ in units))
        )
        representations = [c.representation(n, intervention) for n, c, _, intervention in units]
        made = [c if kind.reads_source else replace(c, source=()) for _, c, kind, _ in units]
        wanted.append(by_pyvene(family, representations, first, made)[1])
    got = [by_us(family, row) for row in rows]
    assert got == wanted
    assert got != [by_us(family, Row(row.base)) for row in rows]


@pytest.mark.slow_unless(family=["llama"])
@each_family
def test_a_zero_at_every_token_prompt_and_new_generates_what_pyvene_generates(
    family: str,
) -> None:
    """pyvene is told no locations: then it intervenes on every token of every forward pass of the
    generation."""
    name = names(family)["mlp_output"]
    got, wanted, on_prompt = [], [], []
    for case in cases(family, name, 6, "zero"):
        patch = Patch(Point(case.layer, name.ours), tuple(range(len(case.base))), (), Zero())
        got.append(by_us(family, Row(case.base, (patch,)), every=True))
        on_prompt.append(by_us(family, Row(case.base, (patch,))))
        representation = case.representation(name, pyvene.ZeroIntervention)
        wanted.append(by_pyvene(family, [representation], case, None)[1])
    assert got == wanted
    assert got != on_prompt, "new tokens should matter"


@pytest.mark.slow_unless(family=["llama"])
@pytest.mark.slow_unless(what=["interchange"], component=["residual"])
@each_family
@pytest.mark.parametrize("component", ["residual", "mlp_output"])
@pytest.mark.parametrize("what", ["interchange", "zero"])
def test_an_intervention_on_new_tokens_alone_generates_what_pyvene_generates(
    family: str, component: str, what: str
) -> None:
    """Where pyvene leaves the prompt alone, ours is at a place in it that nothing looks at: the
    first token, in the last layer."""
    side, name = ours(family), names(family)[component]
    last = len(side.network.blocks) - 1
    kind, intervention = {
        "interchange": (INTERCHANGE, pyvene.VanillaIntervention),
        "zero": (Zero(), pyvene.ZeroIntervention),
    }[what]
    got, wanted, left_alone = [], [], []
    for case in cases(family, name, 6, f"new.{what}", tokens=(1,)):
        case = replace(case, layer=last, tokens=(0,))
        got.append(by_us(family, case.row(side, name, kind), every=True))
        left_alone.append(by_us(family, case.row(side, name, kind)))
        representation = case.representation(name, intervention)
        unit = case if kind.reads_source else replace(case, source=())
        wanted.append(by_pyvene(family, [representation], case, [unit], on_prompt=False)[1])
    assert got == wanted
    assert got != left_alone, "new tokens should matter"


@each_family
def test_sampled_after_an_interchange_in_the_prompt_are_the_tokens_that_pyvene_samples(
    family: str,
) -> None:
    """From the same seed, by the same temperature and cuts."""
    side = ours(family)
    made = [at_end(c) for c in cases(family, RESIDUAL, 5, "sampled")]
    got, wanted = [], []
    for seed, case in enumerate(made):
        got.append(by_us(family, case.row(side, RESIDUAL), sampling=Sampling(2.0, 20, 0.95, seed)))
        cuts = {"do_sample": True, "temperature": 2.0, "top_k": 20, "top_p": 0.95}
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            wanted.append(
                by_pyvene(family, [case.representation(RESIDUAL)], case, [case], **cuts)[1]
            )
    assert got == wanted
    assert got != [by_us(family, c.row(side, RESIDUAL)) for c in made]


def at_end(case: Case) -> Case:
    """The case at the last tokens of its prompt, where it is felt."""
    return replace(case, tokens=tuple(range(len(case.base)))[-len(case.tokens) :])


def by_us(family: str, row: Row, **more: Any) -> Ids:
    side = ours(family)
    assert isinstance(side.network, LanguageModel)
    return generate(side.network, side.taps, row, NEW, **more)


def by_pyvene(
    family: str,
    representations: Sequence[Mapping[str, Any]],
    case: Case,
    units: Sequence[Case] | None,
    on_prompt: bool = True,
    **more: Any,
) -> tuple[Ids | None, Ids]:
    """(the new tokens without intervention, if asked; the new tokens). Units without a source have
    (); None: every token."""
    config = pyvene.IntervenableConfig([dict(r) for r in representations])
    intervenable = pyvene.IntervenableModel(config, their_model(family))
    locations, sources, subspaces = None, None, None
    if units is not None:
        lent = [u.lent_location if u.source else None for u in units]
        locations = {"sources->base": (lent, [u.location for u in units])}
        sources = [tensor(u.source) if u.source else None for u in units]
        subspaces = [u.subspace for u in units]
    prompt = tensor(case.base)
    with torch.inference_mode():
        left_alone, out = intervenable.generate(
            {**prompt, "attention_mask": torch.ones_like(prompt["input_ids"])}, sources, locations,
            intervene_on_prompt=on_prompt, subspaces=subspaces, max_new_tokens=NEW, **{"do_sample": False, **more},
        )  # fmt: skip
    start = len(case.base)
    return (None if left_alone is None else tuple(left_alone[0, start:].tolist())), tuple(
        out[0, start:].tolist()
    )
