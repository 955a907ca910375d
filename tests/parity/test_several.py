"""Several units: at once, one after the other in one place, and in series, where each source has
been intervened upon itself."""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from raysearch.core.events import Ids
from raysearch.engine.networks.point import Point
from raysearch.engine.patching.operations import Collect, Operation, Zero
from raysearch.engine.patching.oracle import collect
from raysearch.engine.patching.rows import Patch, Row
from tests.parity.sides import (
    EVERYWHERE,
    FAMILIES,
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
    told,
)

KINDS: tuple[tuple[Operation, type], ...] = (
    (INTERCHANGE, pyvene.VanillaIntervention),
    (INTERCHANGE, pyvene.VanillaIntervention),
    (Zero(), pyvene.ZeroIntervention),
)
LENDING = tuple(kind for kind in KINDS if kind[0].reads_source)
RESIDUAL = EVERYWHERE["residual"]

Unit = tuple[Name, Case, Operation, type]

each_family = pytest.mark.parametrize("family", FAMILIES)
each_seed = pytest.mark.parametrize("seed", range(4))


@pytest.mark.slow_unless(seed=[0])
@each_family
@each_seed
def test_units_at_once_each_with_a_source_of_its_own_are_those_of_pyvene(
    family: str, seed: int
) -> None:
    """Of any components, in any layers, of any kinds; some in coordinates, some in heads."""
    side = ours(family)
    rows, wanted = [], []
    for at in range(3):
        units = random_units(family, f"{seed}.{at}", 2 + at % 2)
        base = units[0][1].base
        rows.append(
            Row(base, tuple(c.patch(side, n, kind, Row(c.source)) for n, c, kind, _ in units))
        )
        wanted.append(at_once(family, units, [c.source for _, c, _, _ in units]))
    alike(side, rows, wanted)


@each_family
def test_units_that_share_a_source_are_those_of_pyvene_in_groups(family: str) -> None:
    """Two units lend from the first source, one from the second."""
    side = ours(family)
    rows, wanted = [], []
    for seed in range(3):
        units = random_units(family, f"groups.{seed}", 3, LENDING)
        runs = [units[0][1].source, units[0][1].source, units[2][1].source]
        units = [
            (n, lent_within(c, run), kind, i)
            for (n, c, kind, i), run in zip(units, runs, strict=True)
        ]
        base = units[0][1].base
        rows.append(
            Row(base, tuple(c.patch(side, n, kind, Row(c.source)) for n, c, kind, _ in units))
        )
        wanted.append(at_once(family, units, [runs[0], runs[2]], groups=(0, 0, 1)))
    alike(side, rows, wanted)


@each_family
@pytest.mark.parametrize("component", ["residual", "block_input", "mlp_activation"])
def test_units_in_one_place_act_in_their_order_as_in_pyvene(family: str, component: str) -> None:
    """The last token is exchanged whole, then twice in part, from three sources."""
    name, side = names(family)[component], ours(family)
    (case,) = cases(family, name, 1, "place", tokens=(1,))
    rng = random.Random(f"{family}.{component}")
    turns = [
        (INTERCHANGE, pyvene.VanillaIntervention, None),
        (INTERCHANGE, pyvene.VanillaIntervention, tuple(range(20))),
        (INTERCHANGE, pyvene.VanillaIntervention, (3, 1, 30)),
    ]
    units: list[Unit] = [
        (name, replace(case, source=ids(rng, 5), lent_tokens=(rng.randrange(5),), features=features), kind, intervention)
        for kind, intervention, features in turns
    ]  # fmt: skip
    row = Row(case.base, tuple(c.patch(side, n, kind, Row(c.source)) for n, c, kind, _ in units))
    back = Row(case.base, tuple(reversed(row.patches)))
    alike(side, [row], [at_once(family, units, [c.source for _, c, _, _ in units])])
    alike(side, [back], [at_once(family, units[::-1], [c.source for _, c, _, _ in units[::-1]])])
    assert far(side.oracle([row])[0], side.oracle([back])[0]) > 100 * TOLERANCE, (
        "their order should matter"
    )


@pytest.mark.slow_unless(seed=[0])
@each_family
@pytest.mark.parametrize("length", [2, 3])
@each_seed
def test_units_in_series_are_those_of_pyvene(family: str, length: int, seed: int) -> None:
    """Each source but the first is run with the unit of the one before put in; the last one's unit
    is put into the base."""
    side = ours(family)
    chains = [random_chain(family, f"{seed}.{at}", length) for at in range(3)]
    rows = [in_series(side, chain) for chain in chains]
    alike(side, rows, [in_series_by_pyvene(family, chain) for chain in chains])
    clean = [in_series(side, chain[-1:]) for chain in chains]
    felt = [far(a, b) for a, b in zip(side.oracle(rows), side.oracle(clean), strict=True)]
    assert max(felt) > 100 * TOLERANCE, "the units before the last should matter"


@each_family
def test_what_is_lent_in_series_from_where_it_was_put_in_is_what_pyvene_lends(family: str) -> None:
    """One place throughout: what the first source puts into the second is what the base gets from
    there."""
    side = ours(family)
    (case,) = cases(family, RESIDUAL, 1, "through", tokens=(1,))
    rng = random.Random(family)
    middle, end = ids(rng, 6), len(case.base) - 1
    first = replace(case, base=middle, tokens=(2,))
    second = replace(case, source=middle, lent_tokens=(2,), tokens=(end,))
    chain: list[Unit] = [
        (RESIDUAL, c, INTERCHANGE, pyvene.VanillaIntervention) for c in (first, second)
    ]
    row = in_series(side, chain)
    alike(side, [row], [in_series_by_pyvene(family, chain)])
    straight = replace(case, tokens=(end,)).row(side, RESIDUAL)
    assert far(side.oracle([row])[0], side.oracle([straight])[0]) <= TOLERANCE


@each_family
def test_a_source_with_several_units_is_what_pyvene_collects_there_and_puts_in(family: str) -> None:
    """pyvene's series have one unit a step; it is asked in two: to collect in the source's run,
    then to put in what it saw."""
    side, layer = ours(family), len(ours(family).network.blocks) - 1
    rows, wanted = [], []
    for seed in range(3):
        units = random_units(family, f"deep.{seed}", 2)
        middle, rng = units[0][1].base, random.Random(seed)
        source = Row(
            middle, tuple(c.patch(side, n, kind, Row(c.source)) for n, c, kind, _ in units)
        )
        base = ids(rng, 5)
        case = Case(layer, base, middle, (len(base) - 1,), (len(middle) - 1,))
        rows.append(Row(base, (case.patch(side, RESIDUAL, INTERCHANGE, source),)))
        seen = collected_at_once(family, units, replace(case, tokens=case.lent_tokens))
        reads = Patch(Point(layer, "residual"), case.lent_tokens, (), Collect())
        (got,) = collect(side.network, side.taps, replace(source, patches=(*source.patches, reads)))
        assert far(got, seen) <= TOLERANCE
        put = case.representation(
            RESIDUAL, pyvene.VanillaIntervention, source_representation=seen[0]
        )
        _, out = told(
            family, [put], tensor(base), [None], {"sources->base": (None, [case.location])}
        )
        wanted.append(out.logits[0, -1])
    alike(side, rows, wanted)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_pyvene_refuses_a_step_in_series_with_two_units_and_ours_is_that_of_plain_hooks(
    family: str,
) -> None:
    """It leaves the getter of all but the last unit of a group on the model, which then fires
    again, and says so."""
    side = ours(family)
    (first, second) = (
        replace(c, layer=at) for at, c in enumerate(cases(family, RESIDUAL, 2, "two", tokens=(1,)))
    )
    second = lent_within(
        replace(second, base=first.base, tokens=(len(first.base) - 1,)), first.source
    )
    row = Row(
        first.base,
        tuple(c.patch(side, RESIDUAL, INTERCHANGE, Row(c.source)) for c in (first, second)),
    )
    wanted = by_hand(side, [first, second])
    assert far(side.oracle([row])[0], wanted) <= TOLERANCE
    assert far(side.fast([row])[0], wanted) <= TOLERANCE
    with pytest.raises(Exception, match="each getter and setter should be called only once"):
        told(
            family,
            [c.representation(RESIDUAL, group_key=0) for c in (first, second)],
            tensor(first.base),
            [tensor(first.source)],
            {"source_0->base": tuple([[list(t)] for t in of] for of in located(first, second))},
            mode="serial",
        )


def random_units(
    family: str, seed: object, count: int, kinds: Sequence[tuple[Operation, type]] = KINDS
) -> list[Unit]:
    """Of one base. The first is at its last token, and lends."""
    rng = random.Random(f"{seed}.{family}")
    base, units = ids(rng, rng.choice((5, 6, 7))), []
    for at in range(count):
        name = rng.choice(list(names(family).values()))
        (case, *_) = cases(family, name, 1, f"{seed}.{at}", tokens=(1, 2))
        layers = sorted(ours(family).taps.of(name.ours))
        tokens = tuple(rng.sample(range(len(base)), len(case.tokens)))
        if at == 0 and len(base) - 1 not in tokens:
            tokens = (len(base) - 1, *tokens[1:])
        case = shaped(
            family, name, replace(case, layer=rng.choice(layers), base=base, tokens=tokens), rng
        )
        kind, intervention = rng.choice([k for k in kinds if at or k in LENDING])
        units.append((name, case, kind, intervention))
    return units


def random_chain(family: str, seed: object, length: int) -> list[Unit]:
    """Each unit's base is the next one's source. Layers go up, and units are at the last tokens, so
    that each is felt."""
    units = random_units(family, f"chain.{seed}", length, LENDING)
    bases = [*(case.source for _, case, _, _ in units[1:]), units[0][1].base]
    top, chain = len(ours(family).network.blocks) - 1, []
    for at, ((name, case, kind, intervention), base) in enumerate(zip(units, bases, strict=True)):
        size = len(case.tokens)
        tokens, lent = last_tokens(base, size), last_tokens(case.source, size)
        case = replace(
            case, layer=at * top // (length - 1), base=base, tokens=tokens, lent_tokens=lent
        )
        chain.append((name, case, kind, intervention))
    return chain


def shaped(family: str, name: Name, case: Case, rng: random.Random) -> Case:
    """Whole, some coordinates, or a head."""
    side = ours(family)
    shape = rng.choice(("whole", "features", "heads"))
    if shape == "heads" and name.ours in ("head", "query", "key", "value"):
        return replace(case, heads=(rng.randrange(side.heads(name)),))
    if shape == "features":
        return replace(case, features=tuple(rng.sample(range(side.width(name)), 6)))
    return case


def lent_within(case: Case, source: Ids) -> Case:
    """With that source, and tokens that it has."""
    return replace(case, source=source, lent_tokens=last_tokens(source, len(case.tokens)))


def last_tokens(run: Ids, count: int) -> Ids:
    return tuple(range(len(run)))[-count:]


def located(*made: Case) -> tuple[Any, Any]:
    return [c.lent_tokens for c in made], [c.tokens for c in made]


def at_once(
    family: str, units: Sequence[Unit], sources: Sequence[Ids], groups: Sequence[int] | None = None
) -> Tensor:
    """pyvene's logits. A unit that lends from nothing has no source."""
    groups = groups or range(len(units))
    keyed = [{"group_key": group} for group in groups]
    needed = {
        group for group, (_, _, kind, _) in zip(groups, units, strict=True) if kind.reads_source
    }
    _, out = told(
        family,
        [c.representation(n, i, **key) for (n, c, _, i), key in zip(units, keyed, strict=True)],
        tensor(units[0][1].base),
        [tensor(source) if at in needed else None for at, source in enumerate(sources)],
        {
            "sources->base": (
                [c.lent_location for _, c, _, _ in units],
                [c.location for _, c, _, _ in units],
            )
        },
        subspaces=[c.subspace for _, c, _, _ in units],
    )
    return out.logits[0, -1]


def collected_at_once(family: str, units: Sequence[Unit], reads: Case) -> Tensor:
    """(token, width), as pyvene sees it in the run of the units' base."""
    (_, (seen,)), _ = told(
        family,
        [
            *(c.representation(n, i) for n, c, _, i in units),
            reads.representation(RESIDUAL, pyvene.CollectIntervention),
        ],
        tensor(units[0][1].base),
        [*(tensor(c.source) if kind.reads_source else None for _, c, kind, _ in units), None],
        {
            "sources->base": (
                [*(c.lent_location for _, c, _, _ in units), None],
                [*(c.location for _, c, _, _ in units), reads.location],
            )
        },
        subspaces=[*(c.subspace for _, c, _, _ in units), None],
    )
    return seen[0]


def in_series(side: Ours, chain: Sequence[Unit]) -> Row:
    run = Row(chain[0][1].source)
    for name, case, kind, _ in chain:
        run = Row(case.base, (case.patch(side, name, kind, run),))
    return run


def in_series_by_pyvene(family: str, chain: Sequence[Unit]) -> Tensor:
    ends = [*(f"source_{at + 1}" for at in range(len(chain) - 1)), "base"]
    _, out = told(
        family,
        [c.representation(n, i) for n, c, _, i in chain],
        tensor(chain[-1][1].base),
        [tensor(c.source) for _, c, _, _ in chain],
        {
            f"source_{at}->{end}": ([c.lent_location], [c.location])
            for at, (end, (_, c, _, _)) in enumerate(zip(ends, chain, strict=True))
        },
        mode="serial",
        subspaces=[c.subspace for _, c, _, _ in chain],
    )
    return out.logits[0, -1]


def by_hand(side: Ours, made: Sequence[Case]) -> Tensor:
    """Residuals exchanged at once, each with what it has in a clean run, by plain hooks."""
    seen: list[Tensor] = []
    for case in made:
        with plain_hook(
            side.network.blocks[case.layer], "output", lambda t: seen.append(t.clone()) or t
        ):
            side.network.plain(case.source)

    def put(case: Case, lent: Tensor) -> Any:
        def change(activation: Tensor) -> Tensor:
            for mine, theirs in zip(case.tokens, case.lent_tokens, strict=True):
                activation[0, mine] = lent[0, theirs]
            return activation

        return plain_hook(side.network.blocks[case.layer], "output", change)

    with put(made[0], seen[0]), put(made[1], seen[1]), torch.no_grad():
        return side.network.plain(made[0].base)
