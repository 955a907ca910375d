"""One unit: what raysearch and pyvene 0.1.8 make of the same intervention, on the same random
weights.

pyvene runs each pair in a batch of one, unless the batch is the point. Where it is wrong, a plain
hook says so.
"""

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from raysearch.engine.networks.point import Point
from raysearch.engine.patching.operations import (
    Collect,
    Operation,
    Zero,
)
from raysearch.engine.patching.oracle import collect
from raysearch.engine.patching.rows import Patch, Row, Source
from tests.parity.sides import (
    EVERYWHERE,
    FAMILIES,
    HEAD_WIDTH,
    INTERCHANGE,
    TOLERANCE,
    Case,
    Name,
    Ours,
    alike,
    cases,
    far,
    ids,
    names,
    ours,
    plain_hook,
    pyvene,
    tensor,
    their_model,
    theirs,
    told,
)

KINDS: dict[str, tuple[Operation, type]] = {
    "interchange": (INTERCHANGE, pyvene.VanillaIntervention),
    "zero": (Zero(), pyvene.ZeroIntervention),
}
HEADED = {
    "head": Name("attention_value_output", "head"),
    "query": Name("query_output", "query"),
    "key": Name("key_output", "key"),
    "value": Name("value_output", "value"),
}
SOME = ("residual", "head", "mlp_activation")
"""Components that stand for the others, where all would take long: a block's, one with heads, one
inside the MLP."""

each_family = pytest.mark.parametrize("family", FAMILIES)
every_component = pytest.mark.parametrize(
    ("family", "component"), [(f, c) for f in FAMILIES for c in names(f)]
)


@pytest.mark.slow_unless(family=["llama"])
@pytest.mark.slow_unless(component=["residual"])
@every_component
def test_an_interchange_of_any_component_is_that_of_pyvene(family: str, component: str) -> None:
    name = names(family)[component]
    made = cases(family, name, 6)
    alike(
        ours(family),
        [c.row(ours(family), name) for c in made],
        [theirs(family, name, c) for c in made],
    )


@pytest.mark.slow_unless(family=["llama"])
@pytest.mark.slow_unless(component=["residual"])
@every_component
def test_an_interchange_of_coordinates_of_any_component_is_that_of_pyvene(
    family: str, component: str
) -> None:
    name, side = names(family)[component], ours(family)
    made = [
        replace(c, features=some(side.width(name), i))
        for i, c in enumerate(cases(family, name, 4, "features"))
    ]
    alike(side, [c.row(side, name) for c in made], [theirs(family, name, c) for c in made])


@pytest.mark.slow_unless(family=["llama"])
@each_family
@pytest.mark.parametrize("component", SOME)
def test_a_zero_is_that_of_pyvene_whole_and_in_coordinates(family: str, component: str) -> None:
    name, side = names(family)[component], ours(family)
    kind, intervention = KINDS["zero"]
    made = cases(family, name, 4, "zero")
    made[1::2] = [replace(c, features=some(side.width(name), i)) for i, c in enumerate(made[1::2])]
    rows = [c.row(side, name, kind) for c in made]
    alike(side, rows, [theirs(family, name, c, intervention) for c in made])


@pytest.mark.slow_unless(family=["llama"])
@pytest.mark.slow_unless(what=["interchange"])
@pytest.mark.parametrize(
    ("family", "component"),
    [("gpt_neox", "head"), *((f, h) for f in FAMILIES if f != "gpt_neox" for h in HEADED)],
)
@pytest.mark.parametrize("what", KINDS)
def test_an_intervention_on_heads_is_that_of_pyvene(family: str, component: str, what: str) -> None:
    """One head, several, others in the source than in the base, and coordinates of a head; keys and
    values of a group too."""
    name, side = HEADED[component], ours(family)
    kind, intervention = KINDS[what]
    heads = range(side.heads(name))
    rng = random.Random(f"{family}.{component}.{what}")
    one, several, crossed, part = cases(family, name, 4, f"heads.{what}")
    one = replace(one, heads=(rng.choice(heads),))
    several = replace(several, heads=tuple(rng.sample(heads, 2)))
    crossed = replace(crossed, heads=(heads[0],), lent_heads=(heads[-1],))
    rows = [c.row(side, name, kind) for c in (one, several, crossed)]
    wanted = [theirs(family, name, c, intervention) for c in (one, several, crossed)]
    part, whole = (
        replace(part, heads=(heads[1],), features=(0, 3)),
        replace(part, heads=(heads[1],)),
    )
    inside = tuple(side.columns(name, (heads[1],))[i] for i in (0, 3))
    patch = whole.patch(side, name, kind, Row(part.source))
    lent = tuple(replace(s, features=inside) for s in patch.sources)
    rows.append(Row(part.base, (replace(patch, features=inside, sources=lent),)))
    alike(side, rows, [*wanted, theirs(family, name, part, intervention)])


def test_pyvene_knows_heads_of_qwen2_only_where_its_config_is_told_their_width() -> None:
    """Its table asks for `head_dim`, which a Qwen2Config lacks; `sides` tells it, so that the
    others can be compared."""
    name, model = HEADED["head"], their_model("qwen2")
    (case,) = cases("qwen2", name, 1)
    del model.config.head_dim
    try:
        with pytest.raises(AttributeError, match="head_dim"):
            theirs("qwen2", name, replace(case, heads=(1,)))
    finally:
        model.config.head_dim = HEAD_WIDTH


@pytest.mark.parametrize("component", ["query", "key", "value"])
def test_queries_keys_and_values_of_a_fused_projection_are_coordinates_that_pyvene_can_be_told(
    component: str,
) -> None:
    """Of GPT-NeoX pyvene names none of them; the projection's columns are, head by head, its query,
    its key, its value."""
    side, d_head = ours("gpt_neox"), HEAD_WIDTH
    start = ("query", "key", "value").index(component) * d_head
    name = Name("gpt_neox.layers[{layer}].attention.query_key_value.output", component)
    rows, wanted = [], []
    for at, case in enumerate(cases("gpt_neox", name, 4)):
        head = at % 4
        rows.append(replace(case, heads=(head,)).row(side, name))
        columns = tuple(head * 3 * d_head + start + i for i in range(d_head))
        wanted.append(theirs("gpt_neox", name, replace(case, features=columns)))
    alike(side, rows, wanted)


@pytest.mark.slow_unless(family=["llama"])
@each_family
def test_an_interchange_of_embeddings_is_that_of_pyvene(family: str) -> None:
    path = {"gpt2": "transformer.wte", "gpt_neox": "gpt_neox.embed_in"}.get(
        family, "model.embed_tokens"
    )
    name = Name(f"{path}.output", "embedding")
    made = cases(family, name, 4)
    alike(
        ours(family),
        [c.row(ours(family), name) for c in made],
        [theirs(family, name, c) for c in made],
    )


@pytest.mark.slow_unless(family=["llama"])
@each_family
def test_a_mean_over_sources_is_what_pyvene_collects_averages_and_puts_in(family: str) -> None:
    name, side, rng = EVERYWHERE["residual"], ours(family), random.Random(family)
    rows, wanted = [], []
    for case in cases(family, name, 3, "mean", tokens=(1,)):
        runs = [case.source, ids(rng, 5), ids(rng, 6)]
        tokens = [rng.randrange(len(run)) for run in runs]
        point = Point(case.layer, "residual")
        lent = tuple(Source(Row(run), point, (at,)) for run, at in zip(runs, tokens, strict=True))
        rows.append(Row(case.base, (Patch(point, case.tokens, lent),)))
        seen = [
            collected_by_pyvene(family, name, replace(case, base=run, tokens=(at,)))
            for run, at in zip(runs, tokens, strict=True)
        ]
        mean = torch.stack(seen).mean(0)[0]
        representation = case.representation(
            name, pyvene.VanillaIntervention, source_representation=mean
        )
        _, out = told(
            family,
            [representation],
            tensor(case.base),
            [None],
            {"sources->base": (None, [case.location])},
        )
        wanted.append(out.logits[0, -1])
    alike(side, rows, wanted)


@pytest.mark.slow_unless(family=["llama"])
@every_component
def test_what_is_collected_is_what_pyvene_collects(family: str, component: str) -> None:
    """Whole, and in coordinates: of these pyvene is told across the tokens that it has joined."""
    name, side = names(family)[component], ours(family)
    width = side.width(name)
    for case in cases(family, name, 4, "collect"):
        features = some(width, case.layer)
        assert_collected(side, name, case, collected_by_pyvene(family, name, case))
        joined = tuple(at * width + f for at in range(len(case.tokens)) for f in features)
        seen = collected_by_pyvene(family, name, replace(case, features=joined))
        assert_collected(side, name, replace(case, features=features), seen)


@pytest.mark.parametrize(
    ("family", "component"), [(f, h) for f in ("gpt2", "llama") for h in HEADED]
)
def test_what_is_collected_of_heads_is_what_pyvene_collects(family: str, component: str) -> None:
    name, side = HEADED[component], ours(family)
    for case in cases(family, name, 3, "heads"):
        case = replace(case, heads=(1, 0))
        seen = collected_by_pyvene(family, name, case)  # head by head: (head, token, width)
        assert_collected(side, name, case, seen.transpose(0, 1).flatten(1))


@pytest.mark.slow_unless(family=["llama"])
@each_family
def test_what_is_collected_after_an_interchange_is_what_pyvene_collects(family: str) -> None:
    """At later layers, and at the very place that is intervened on."""
    name, side = EVERYWHERE["residual"], ours(family)
    last = len(side.network.blocks) - 1
    for case in cases(family, name, 4, "after"):
        patch = case.patch(side, name, INTERCHANGE, Row(case.source))
        at = replace(case, layer=max(case.layer, last))
        reads = Patch(Point(at.layer, "residual"), (len(case.base) - 1,), (), Collect())
        (got,) = collect(side.network, side.taps, Row(case.base, (patch, reads)))
        representations = [
            case.representation(name),
            at.representation(name, pyvene.CollectIntervention),
        ]
        (_, (seen,)), _ = told(
            family, representations, tensor(case.base), [tensor(case.source), None],
            {"sources->base": ([case.lent_location, None], [case.location, [[len(case.base) - 1]]])},
        )  # fmt: skip
        assert far(got, seen[0]) <= TOLERANCE


@pytest.mark.slow_unless(family=["llama"])
@each_family
@pytest.mark.parametrize("component", SOME)
def test_a_batch_with_positions_of_its_own_for_each_pair_is_that_of_pyvene(
    family: str, component: str
) -> None:
    name, side, rng = names(family)[component], ours(family), random.Random(f"{family}.{component}")
    (first, *_) = cases(family, name, 1, "batch")
    made = []
    for _ in range(5):
        mine, lent = rng.sample(range(6), 2), rng.sample(range(7), 2)
        made.append(
            replace(
                first,
                base=ids(rng, 6),
                source=ids(rng, 7),
                tokens=tuple(mine),
                lent_tokens=tuple(lent),
            )
        )
    _, out = told(
        family, [made[0].representation(name)],
        tensor(*(c.base for c in made)), [tensor(*(c.source for c in made))],
        {"sources->base": ([[list(c.lent_tokens) for c in made]], [[list(c.tokens) for c in made]])},
    )  # fmt: skip
    alike(side, [c.row(side, name) for c in made], list(out.logits[:, -1]))


@pytest.mark.slow_unless(family=["llama"])
@each_family
def test_coordinates_of_its_own_for_each_pair_are_those_of_pyvene_where_they_differ_in_number(
    family: str,
) -> None:
    side, name = ours(family), EVERYWHERE["residual"]
    made = pairs_with((0, 5, 9), (1, 2), tuple(range(10, 20)))
    alike(side, [c.row(side, name) for c in made], batch_of_pyvene(family, name, made))


@pytest.mark.slow_unless(family=["llama"])
@each_family
def test_pyvene_swaps_the_union_of_as_many_coordinates_for_each_pair_and_ours_are_those_of_a_plain_hook(
    family: str,
) -> None:
    side, name = ours(family), EVERYWHERE["residual"]
    made = pairs_with((0, 5, 9), (1, 2, 9), (10, 11, 12))
    rows, got = [c.row(side, name) for c in made], batch_of_pyvene(family, name, made)
    for row, case, wrong in zip(rows, made, got, strict=True):
        wanted = by_hand(side, row.patches[0], case)
        assert far(side.oracle([row])[0], wanted) <= TOLERANCE
        assert far(side.fast([row])[0], wanted) <= TOLERANCE
        assert far(wrong, wanted) > 100 * TOLERANCE
    union = tuple(sorted({f for c in made for f in c.features or ()}))
    alike(side, [replace(c, features=union).row(side, name) for c in made], got)


def some(width: int, at: int) -> tuple[int, ...] | range:
    """Coordinates: a few in no order, or a run of them."""
    return (
        range(at % 3, width // 2)
        if at % 2
        else tuple(random.Random(f"{width}.{at}").sample(range(width), 5))
    )


def collected_by_pyvene(family: str, name: Name, case: Case) -> Tensor:
    """(token, width), or (head, token, width)."""
    (_, collected), _ = told(
        family, [case.representation(name, pyvene.CollectIntervention)], tensor(case.base), [None],
        {"sources->base": (None, [case.location])}, subspaces=None if case.subspace is None else [case.subspace],
    )  # fmt: skip
    return torch.cat(collected)[0]


def assert_collected(side: Ours, name: Name, case: Case, seen: Tensor) -> None:
    features = side.columns(name, case.heads) if case.heads else case.features
    reads = Patch(Point(case.layer, name.ours), case.tokens, (), Collect(), features)
    (got,) = collect(side.network, side.taps, Row(case.base, (reads,)))
    assert far(got, seen) <= TOLERANCE


def pairs_with(*features: tuple[int, ...]) -> list[Case]:
    """At the last token, after layer 0."""
    rng = random.Random("pairs")
    return [Case(0, ids(rng, 6), ids(rng, 7), (5,), (6,), each) for each in features]


def batch_of_pyvene(family: str, name: Name, made: Sequence[Case]) -> list[Tensor]:
    _, out = told(
        family, [made[0].representation(name)],
        tensor(*(c.base for c in made)), [tensor(*(c.source for c in made))],
        {"sources->base": ([[list(c.lent_tokens) for c in made]], [[list(c.tokens) for c in made]])},
        subspaces=[[list(c.features or ()) for c in made]],
    )  # fmt: skip
    return list(out.logits[:, -1])


def by_hand(side: Ours, patch: Patch, case: Case) -> Tensor:
    """An interchange of a module's columns, by plain hooks."""
    tap = side.taps.at(patch.point)
    module: nn.Module = tap.module
    seen: list[Tensor] = []

    def keep(activation: Tensor) -> Tensor:
        seen.append(activation.clone())
        return activation

    def put(activation: Tensor) -> Tensor:
        for mine, lent in zip(case.tokens, case.lent_tokens, strict=True):
            for column in patch.features or ():
                activation[0, mine, column] = seen[0][0, lent, column]
        return activation

    with plain_hook(module, tap.side, keep):
        side.network.plain(case.source)
    with plain_hook(module, tap.side, put):
        return side.network.plain(case.base)
