"""Effects to first order: as autograd through the oracle's own interchange has them, and a linear
network; nothing is left behind."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from raysearch.causal import ONE_SOURCE, Stimulus
from raysearch.core.events import Attributed, Block, Encoded, Failed, Ids, Task
from raysearch.core.hypothesis import Intervention, Site, Unit
from raysearch.engine.attribution.attributor import Attributor
from raysearch.engine.execution.memory import RowLimit
from raysearch.engine.execution.predict import NEAR_TIE
from raysearch.engine.execution.usage import UsageMeter
from raysearch.engine.networks.components import Components
from raysearch.engine.networks.network import LanguageModel, Network
from raysearch.engine.networks.tensor_network import TensorNetwork
from raysearch.engine.patching.build import build_row
from raysearch.engine.patching.operations import Collect
from raysearch.engine.patching.oracle import collect, oracle
from raysearch.engine.patching.rows import Patch, Row
from raysearch.engine.replica import Replica
from tests.engine.worlds import (
    POSITIONS,
    World,
    encoded_pairs,
    loaded,
    model_of,
    random_pairs,
    shared_world,
    world_of,
)

PER_HEAD = ("head", "query", "key", "value")


def two_variables(count: int = 9, seed: int = 0) -> tuple[Encoded, ...]:
    """Random pairs of all lengths; y is x on some, the base's answer on others."""
    pairs = []
    for pair in encoded_pairs(seed, count):
        x, own = pair.counterfactual["x"], pair.answers["base"]
        pairs.append(
            replace(
                pair,
                counterfactual={"x": x, "y": (x, own, pair.answers[ONE_SOURCE])[pair.index % 3]},
            )
        )
    return tuple(pairs)


def all_units(world: World) -> list[Unit]:
    """Every component, positions and layers in turn, a head where there are any and all heads
    together; and two from another place."""
    units = []
    for at, component in enumerate(world.components()):
        found = world.taps.of(component)
        layer, position = sorted(found)[at % len(found)], ("here", "last")[at % 2]
        heads = (None, found[layer].heads - 1) if component in PER_HEAD else (None,)
        units += [Unit(Site(layer, component, position, head)) for head in heads]
    here = [Site(layer, "residual", "here") for layer in range(2)]
    heads_of = [Site(1, "head", "last", head) for head in range(2)]
    return [*units, Unit(here[0], source_site=here[1]), Unit(heads_of[0], source_site=heads_of[1])]


def attributor(
    network: Network, taps: Components, plain: bool = False, rows: int = 64
) -> Attributor:
    return Attributor(network, taps, plain, RowLimit(rows), NEAR_TIE["float32"])


def by_autograd(
    network: Network, taps: Components, pairs: Sequence[Encoded], *units: Unit, variable: str = "x"
) -> float:
    """The effect of units together; each interchange is run by the oracle itself, what is put in
    standing at the base's own activation."""
    total = 0.0
    for pair in pairs:
        wanted, own = pair.counterfactual[variable], pair.answers["base"]
        if wanted != own:
            logits = network.plain(pair.base)
            lead = abs(float(logits[own[0]] - logits[wanted[0]]))
            total += min(
                1.0,
                abs(sum(_move(network, taps, pair, unit, wanted[0], own[0]) for unit in units))
                / lead,
            )
    return total


def _move(
    network: Network, taps: Components, pair: Encoded, unit: Unit, wanted: int, own: int
) -> float:
    (patch,) = build_row(pair, Intervention((unit,)), taps).patches
    (source,) = patch.sources
    (ours,) = collect(
        network,
        taps,
        Row(pair.base, (Patch(patch.point, patch.tokens, (), Collect(), patch.features),)),
    )
    reads = Patch(source.point, source.tokens, (), Collect(), source.features)
    (lent,) = collect(network, taps, Row(source.run.base, (reads,)))
    put = ours.clone().requires_grad_()
    logits = oracle(network, taps, Row(pair.base, (patch,)), [put])
    (gradient,) = torch.autograd.grad(logits[wanted] - logits[own], put)
    return float((gradient.double() * (lent - ours).double()).sum())


@pytest.mark.slow_unless(plain=[True])
@pytest.mark.slow_unless(family=["gpt_neox"])
@pytest.mark.parametrize(
    ("family", "plain"), [("llama", False), ("llama", True), ("gpt2", False), ("gpt_neox", False)]
)
def test_effects_are_those_of_autograd_through_the_interchange_at_every_site(
    family: str, plain: bool
) -> None:
    world, pairs = shared_world(family), two_variables(3)
    units = all_units(world)
    effects = attributor(world.network, world.taps, plain).effects(pairs, units)
    for variable in ("x", "y"):
        wanted = [
            by_autograd(world.network, world.taps, pairs, unit, variable=variable) for unit in units
        ]
        assert effects[variable] == pytest.approx(wanted, rel=1e-4, abs=1e-5)
    assert sum((e or 0) > 0.01 for e in effects["x"]) > len(units) / 2
    assert sum((e or 0) < len(pairs) - 0.01 for e in effects["x"]) > len(units) / 2


class Mix(nn.Module):
    """A linear block on two tokens: each keeps what it has and is given something of both."""

    def __init__(self) -> None:
        super().__init__()
        self.width, self.tokens = nn.Linear(6, 6), nn.Parameter(torch.randn(2, 2))

    def forward(self, given: Tensor) -> Tensor:
        return given + self.tokens @ self.width(given)


class Linear(nn.Module):
    """Three of them, and what the last token has is the answer."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Mix() for _ in range(3))

    def forward(self, given: Tensor) -> Tensor:
        for layer in self.layers:
            given = layer(given)
        return given[:, -1, :4]


def linear() -> TensorNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = Linear()
    return TensorNetwork(model.eval().requires_grad_(False), torch.zeros(2, 6))


class Recurrent(nn.Module):
    """Class logits from the last hidden state of two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(5, 8, num_layers=2, batch_first=True)
        self.out = nn.Linear(8, 4)

    def forward(self, given: Tensor) -> Tensor:
        return self.out(self.rnn(given)[0][:, -1])


def recurrent() -> TensorNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = Recurrent()
    return TensorNetwork(model.eval().requires_grad_(False), torch.zeros(4, 5))


def tensor_pairs(shape: tuple[int, ...], positions: dict[str, Ids]) -> list[Encoded]:
    generator = torch.Generator().manual_seed(5)
    pairs = []
    for index in range(6):
        base, source = (Stimulus.of(torch.randn(shape, generator=generator)) for _ in range(2))
        answers = {"base": (index % 4,), ONE_SOURCE: (0,)}
        counterfactual = {"x": ((index + 1 + index % 3) % 4,)}
        at = {ONE_SOURCE: positions}
        pairs.append(
            Encoded(index, base, {ONE_SOURCE: source}, positions, at, answers, counterfactual)
        )
    return pairs


def test_on_a_linear_network_an_effect_is_what_the_interchange_does() -> None:
    network = linear()
    taps, pairs = Components(network), tensor_pairs((2, 6), {"first": (0,), "last": (1,)})
    sites = [
        Site(layer, c, p)
        for layer in range(3)
        for c in ("residual", "block_input")
        for p in ("first", "last")
    ]
    units = list(map(Unit, sites))
    effects = attributor(network, taps).effects(pairs, units)["x"]
    for unit, effect in zip(units, effects, strict=True):
        moved = 0.0
        for pair in pairs:
            wanted, own = pair.counterfactual["x"][0], pair.answers["base"][0]
            done = oracle(
                network, taps, build_row(pair, Intervention((unit,)), taps)
            ) - network.plain(pair.base)
            alone = network.plain(pair.base)
            moved += min(1.0, abs(float((done[wanted] - done[own]) / (alone[wanted] - alone[own]))))
        assert effect == pytest.approx(moved, rel=1e-4, abs=1e-5)
    told = dict(zip(sites, effects, strict=True))
    assert told[Site(2, "residual", "first")] == 0, (
        "nobody reads what the first token has in the end"
    )
    assert len({effect for effect in effects if 0 < (effect or 0) < len(pairs)}) >= 6


def test_time_steps_of_a_recurrent_network_have_effects_of_their_own_and_a_span_of_them_the_sum() -> (
    None
):
    network = recurrent()
    taps = Components(network)
    pairs = tensor_pairs((4, 5), {"first": (0,), "two": (2,), "last": (3,), "late": (2, 3)})
    steps, span = [
        [Unit(Site(layer, "residual", p)) for p in ps for layer in (0, 1)]
        for ps in (("first", "two", "last"), ("late",))
    ]
    effects = attributor(network, taps).effects(pairs, steps)["x"]
    assert effects == pytest.approx(
        [by_autograd(network, taps, pairs, unit) for unit in steps], rel=1e-4, abs=1e-6
    )
    assert min(e or 0 for e in effects) > 0
    wanted = [
        by_autograd(network, taps, pairs, *(Unit(Site(at, "residual", p)) for p in ("two", "last")))
        for at in (0, 1)
    ]
    assert attributor(network, taps).effects(pairs, span)["x"] == pytest.approx(
        wanted, rel=1e-4, abs=1e-6
    )


def test_effects_do_not_depend_on_the_company_and_a_block_has_the_sum_of_its_pairs() -> None:
    world, pairs = shared_world("llama"), two_variables(8)
    units = all_units(world)
    together = attributor(world.network, world.taps).effects(pairs, units)
    for rows in (1, 3):
        fewer = attributor(world.network, world.taps, rows=rows).effects(pairs, units)
        assert fewer["x"] == pytest.approx(together["x"], rel=1e-4, abs=1e-5)
    alone = attributor(world.network, world.taps)
    each = [alone.effects([pair], units) for pair in pairs]
    for v in ("x", "y"):
        sums = [sum(e[v][at] or 0.0 for e in each) for at in range(len(units))]
        assert sums == pytest.approx(together[v], rel=1e-4, abs=1e-5)


def test_the_model_is_as_it_was_whether_it_went_well_or_not() -> None:
    world = world_of(model_of("gpt2"))
    pairs = two_variables(3)
    before = world.plain(pairs[0].base)
    state = {name: tensor.clone() for name, tensor in world.model.state_dict().items()}
    asked = attributor(world.network, world.taps)
    asked.effects(pairs, all_units(world))
    wrong = replace(pairs[0], counterfactual={"x": (10_000,), "y": (3,)})
    with pytest.raises((IndexError, RuntimeError)):
        asked.effects([wrong], [Unit(Site(0, "residual", "here"))])
    for module in world.model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    assert not any(p.requires_grad or p.grad is not None for p in world.model.parameters())
    assert all(
        torch.equal(tensor, state[name]) for name, tensor in world.model.state_dict().items()
    )
    assert torch.equal(world.plain(pairs[0].base), before)


def test_what_cannot_be_interchanged_on_one_pair_has_no_effect_and_spares_the_others() -> None:
    world, pairs = shared_world("llama"), list(two_variables(3))
    pairs[1] = replace(pairs[1], base_positions={**pairs[1].base_positions, "here": (0, 1)})
    units = [Unit(Site(1, "residual", p)) for p in ("here", "last", "nowhere")]
    effects = attributor(world.network, world.taps).effects(pairs, units)
    assert [e is None for e in effects["x"]] == [True, False, True]
    (wanted,) = attributor(world.network, world.taps).effects(pairs, units[1:2])["x"]
    assert effects["x"][1] == wanted != 0


def test_answers_are_told_apart_at_the_first_token_in_which_they_differ() -> None:
    world = shared_world("llama")
    pair = encoded_pairs(1, 1, shortest=4)[0]
    units = all_units(world)
    long = replace(
        pair,
        answers={**pair.answers, "base": (7, 9, 3)},
        counterfactual={"x": (7, 4, 3), "same": (7, 9)},
    )
    short = replace(
        pair,
        base=(*pair.base, 7),
        answers={**pair.answers, "base": (9,)},
        counterfactual={"x": (4,)},
    )
    told, wanted = (
        attributor(world.network, world.taps).effects([p], units) for p in (long, short)
    )
    assert told["x"] == pytest.approx(wanted["x"], rel=1e-5, abs=1e-6)
    assert set(told["same"]) == {0.0}


class Doubled(LanguageModel):
    """In a batch all logits are twice what they are."""

    def batch(self, *given: object) -> Tensor:
        return 2 * super().batch(*given)  # type: ignore[arg-type]


def test_batches_that_say_something_else_are_not_trusted(caplog: pytest.LogCaptureFixture) -> None:
    world, pairs = shared_world("llama"), two_variables(4)
    network, units = (
        Doubled(world.model),
        [Unit(Site(1, "residual", "here")), Unit(Site(2, "head", "last", 1))],
    )
    with caplog.at_level(logging.WARNING):
        effects = attributor(network, world.taps).effects(pairs, units)
    assert effects["x"] == pytest.approx(
        attributor(world.network, world.taps).effects(pairs, units)["x"], rel=1e-4
    )
    assert "bases are run one by one, slowly" in caplog.text


class FirstRow(LanguageModel):
    """In a batch the logits of texts that are not the first row's are twice what they are."""

    def batch(self, givens: Sequence[Ids], *more: object) -> Tensor:  # type: ignore[override]
        times = torch.tensor([1.0 if given == givens[0] else 2.0 for given in givens])
        return super().batch(givens, *more) * times[:, None]  # type: ignore[arg-type]


def test_batches_are_tried_on_texts_that_differ_though_the_first_has_a_length_of_its_own(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world, units = shared_world("llama"), [Unit(Site(1, "residual", "here"))]
    pairs = two_variables(40)
    lengths = Counter(len(pair.base) for pair in pairs)
    first = replace(pairs[0], base=(*pairs[0].base, *range(3, 3 + max(lengths))))
    network = FirstRow(world.model)
    with caplog.at_level(logging.WARNING):
        effects = attributor(network, world.taps).effects((first, *pairs[1:]), units)
    alone = attributor(network, world.taps, plain=True)
    assert effects == alone.effects((first, *pairs[1:]), units)
    assert "bases are run one by one, slowly" in caplog.text


def test_what_is_run_is_counted() -> None:
    world, pairs, meter = shared_world("llama"), encoded_pairs(0, 4), UsageMeter()
    asked = Attributor(world.network, world.taps, True, RowLimit(64), 1e-3, meter)
    asked.effects(pairs, [Unit(Site(0, "residual", "last"))])
    assert meter._tokens == sum(len(p.base) + len(p.sources[ONE_SOURCE]) for p in pairs)


def test_a_replica_tells_effects_block_by_block_or_that_the_task_failed() -> None:
    raw = random_pairs(3, 6)
    replica = Replica(
        loaded(model_of("llama")),
        raw,
        POSITIONS,
        ["x"],
        worker="w",
        components=("residual", "head"),
    )
    units = (Unit(Site(0, "residual", "here")), Unit(Site(2, "head", "last", 3)))
    blocks = (Block("fit", 0, (0, 1, 2, 3)), Block("fit", 1, (4, 5)))
    events = replica.do(Task(7, "attribute", (), blocks, units=units))
    assert [(type(e), e.task, e.block) for e in events if isinstance(e, Attributed)] == [
        (Attributed, 7, 0),
        (Attributed, 7, 1),
    ]
    for event, block in zip(events, blocks, strict=True):
        assert isinstance(event, Attributed)
        wanted = [
            replica._runner.attributor.effects([replica._pairs[i] for i in block.pairs], units)["x"]
        ]
        assert [event.effects["x"]] == wanted
    assert replica.usage().phases["fit"] > 0
    (failed,) = replica.do(Task(8, "attribute", (), (Block("fit", 2, (99,)),), units=units))
    assert isinstance(failed, Failed)
    assert (failed.intervention, failed.error_type, failed.group) == (None, "KeyError", ())
