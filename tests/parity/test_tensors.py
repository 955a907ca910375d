"""Networks on tensors: pyvene's own MLP and GRU classifiers, against the same weights as a
`TensorNetwork`.

The MLP is the same class on both sides. The GRU is torch's on ours: pyvene's is a list of cells of
its own, and the two are first shown to be one function. Of recurrent networks pyvene 0.1.8 gets
little right; each test says what, and plain hooks say the rest.
"""

import pytest
import torch

from raysearch.causal import Stimulus
from raysearch.core.events import Ids
from raysearch.engine.patching.rows import FeatureIndices, Row
from tests.parity.classifiers import (
    ALL,
    KINDS,
    LAYERS,
    LONGER,
    STEPS,
    Unit,
    by_hand,
    by_hand_collected,
    collected_by_pyvene,
    collected_by_us,
    gru,
    inputs,
    mlp,
    our_gru,
    our_mlp,
    row,
    theirs,
)
from tests.parity.sides import TOLERANCE, Name, alike, far, pyvene

each_layer = pytest.mark.parametrize("layer", range(LAYERS))
each_kind = pytest.mark.parametrize("what", KINDS)
whole_or_not = pytest.mark.parametrize(
    "features", [None, (0, 7, 2), range(3, 9)], ids=["whole", "some", "a run"]
)


OF_MLP = {
    "residual": Name("block_output", "residual"),
    "block_input": Name("block_input", "block_input"),
    "activation": Name("mlp_activation", "mlp.h.{layer}.act"),
    "linear": Name("mlp.h[{layer}].ff1.output", "mlp.h.{layer}.ff1"),
}


@each_kind
@each_layer
@pytest.mark.parametrize("component", OF_MLP)
@whole_or_not
def test_an_intervention_on_an_mlp_is_that_of_pyvene(
    what: str, layer: int, component: str, features: FeatureIndices
) -> None:
    name = OF_MLP[component]
    rows, wanted = [], []
    for seed in range(3):
        base, source = inputs(seed, 1, 1)
        unit = Unit(name, layer, source, features=features, what=what)
        rows.append(row(base, unit))
        wanted.append(theirs(mlp(), base, [unit]))
    alike(our_mlp(), rows, wanted)


@each_layer
def test_a_batch_through_an_mlp_is_that_of_pyvene(layer: int) -> None:
    pairs = [inputs(seed, 1, 1) for seed in range(5)]
    units = [Unit(OF_MLP["residual"], layer, source) for _, source in pairs]
    config = pyvene.IntervenableConfig([units[0].representation()])
    with torch.inference_mode():
        _, out = pyvene.IntervenableModel(config, mlp())(
            {"inputs_embeds": torch.stack([base for base, _ in pairs])},
            [{"inputs_embeds": torch.stack([source for _, source in pairs])}],
            {"sources->base": 0},
        )
    alike(
        our_mlp(),
        [row(base, unit) for (base, _), unit in zip(pairs, units, strict=True)],
        list(out[0]),
    )


def test_several_units_of_an_mlp_are_those_of_pyvene_at_once() -> None:
    """Two in one place among them."""
    rows, wanted = [], []
    for seed in range(4):
        base, *sources = inputs(seed, 1, 1, 1, 1)
        units = [
            Unit(OF_MLP["residual"], 0, sources[0], features=range(5)),
            Unit(OF_MLP["residual"], 0, sources[1], features=(6, 8)),
            Unit(OF_MLP["activation"], 2, sources[2], features=(1, 2)),
        ]
        rows.append(row(base, *units))
        wanted.append(theirs(mlp(), base, units))
    alike(our_mlp(), rows, wanted)


def test_units_of_an_mlp_in_series_are_those_of_pyvene() -> None:
    rows, wanted = [], []
    for seed in range(4):
        base, first, second = inputs(seed, 1, 1, 1)
        units = [
            Unit(OF_MLP["residual"], 0, first, features=range(6)),
            Unit(OF_MLP["activation"], 1, second, features=range(2, 9)),
        ]
        middle = Row(Stimulus.of(second), (units[0].patch(),))
        rows.append(Row(Stimulus.of(base), (units[1].patch(middle),)))
        locations = {"source_0->source_1": ([[[0]]], [[[0]]]), "source_1->base": ([[[0]]], [[[0]]])}
        wanted.append(theirs(mlp(), base, units, locations=locations, mode="serial"))
    alike(our_mlp(), rows, wanted)


@each_layer
@pytest.mark.parametrize("component", OF_MLP)
@whole_or_not
def test_what_is_collected_in_an_mlp_is_what_pyvene_collects(
    layer: int, component: str, features: FeatureIndices
) -> None:
    (base,) = inputs(layer, 1)
    unit = Unit(OF_MLP[component], layer, base, features=features)
    seen = collected_by_pyvene(mlp(), base, unit)
    assert far(collected_by_us(our_mlp(), base, unit), torch.cat(seen)[0]) <= TOLERANCE


def test_the_gru_of_torch_is_that_of_pyvene() -> None:
    (base,) = inputs("same", STEPS)
    with torch.inference_mode():
        want = gru()(inputs_embeds=base[None])[0][0]
    assert far(our_gru().network.plain(Stimulus.of(base)), want) <= TOLERANCE


CELL = Name("cell_output", "residual")
GIVEN = Name("cell_input", "block_input")


@each_layer
@whole_or_not
@pytest.mark.parametrize("lent", [(0, 1, 2, 3), (0, 2, 4, 5)])
def test_an_interchange_at_every_step_of_a_gru_is_that_of_pyvene(
    layer: int, features: FeatureIndices, lent: Ids
) -> None:
    """Also with other steps of a longer source."""
    rows, wanted = [], []
    for seed in range(3):
        base, source = inputs(seed, STEPS, LONGER)
        unit = Unit(CELL, layer, source, ALL, lent, features)
        rows.append(row(base, unit))
        wanted.append(theirs(gru(), base, [unit]))
    alike(our_gru(), rows, wanted)


@each_layer
@whole_or_not
def test_a_zero_at_every_step_of_a_gru_is_that_of_pyvene_which_knows_no_other(
    layer: int, features: FeatureIndices
) -> None:
    """Told of one step, it puts zeros in at all; ours is that of plain hooks."""
    base, source = inputs(layer, STEPS, STEPS)
    every = Unit(CELL, layer, source, ALL, ALL, features, "zero")
    alike(our_gru(), [row(base, every)], [theirs(gru(), base, [every])])
    one = Unit(CELL, layer, source, (1,), (1,), features, "zero")
    assert far(theirs(gru(), base, [one]), theirs(gru(), base, [every])) <= TOLERANCE
    alike(our_gru(), [row(base, one)], [by_hand(base, one, lambda _: torch.tensor(0.0))])


@each_layer
@pytest.mark.parametrize(("tokens", "lent"), [((3,), (5,)), ((1,), (1,)), ((0, 2), (2, 3))])
def test_where_some_steps_of_a_gru_are_exchanged_pyvene_puts_zeros_at_the_others_and_ours_are_those_of_plain_hooks(
    layer: int, tokens: Ids, lent: Ids
) -> None:
    """What it puts in between is marked "super danger" in its source, and the line that would mend
    it is commented out."""
    base, source = inputs(f"{layer}.{tokens}", STEPS, LONGER)
    unit = Unit(CELL, layer, source, tokens, lent)
    seen = by_hand_collected(source, layer)
    at = dict(zip(tokens, lent, strict=True))
    wanted = by_hand(base, unit, lambda step: seen[at[step]])
    got = theirs(gru(), base, [unit])
    our = our_gru()
    assert far(our.oracle([row(base, unit)])[0], wanted) <= TOLERANCE
    assert far(our.fast([row(base, unit)])[0], wanted) <= TOLERANCE
    others = tuple(step for step in ALL if step not in tokens)
    zeroed = row(base, unit, Unit(CELL, layer, source, others, what="zero"))
    assert far(our.oracle([zeroed])[0], got) <= TOLERANCE
    assert far(our.fast([zeroed])[0], got) <= TOLERANCE
    if layer < LAYERS - 1 or STEPS - 1 not in tokens:  # else the others are not looked at again
        assert far(got, wanted) > 10 * TOLERANCE


@pytest.mark.parametrize(
    ("layer", "features"), [(0, None), (0, (0, 7, 2)), (0, range(3, 9)), (1, None), (2, None)]
)
def test_what_a_layer_of_a_gru_is_given_at_every_step_is_exchanged_as_in_pyvene(
    layer: int, features: FeatureIndices
) -> None:
    """Of the upper layers all of it: see the next test."""
    rows, wanted = [], []
    for seed in range(3):
        base, source = inputs(seed, STEPS, LONGER)
        unit = Unit(GIVEN, layer, source, ALL, (1, 2, 3, 5), features)
        rows.append(row(base, unit))
        wanted.append(theirs(gru(), base, [unit]))
    alike(our_gru(), rows, wanted)


def test_two_layers_of_a_gru_at_every_step_are_exchanged_at_once_as_in_pyvene() -> None:
    rows, wanted = [], []
    for seed in range(3):
        base, first, second = inputs(seed, STEPS, STEPS, LONGER)
        units = [
            Unit(CELL, 0, first, ALL, ALL, range(5)),
            Unit(CELL, 1, second, ALL, (1, 3, 4, 5), (2, 7)),
        ]
        rows.append(row(base, *units))
        wanted.append(theirs(gru(), base, units))
    alike(our_gru(), rows, wanted)


@pytest.mark.filterwarnings("ignore:To copy construct from a tensor:UserWarning")  # pyvene's own
def test_layers_of_a_gru_at_every_step_are_exchanged_in_series_as_in_pyvene() -> None:
    rows, wanted, every = [], [], [[list(ALL)]]
    for seed in range(3):
        base, first, second = inputs(seed, STEPS, STEPS, STEPS)
        units = [Unit(CELL, 0, first, ALL, ALL, range(5)), Unit(CELL, 1, second, ALL, ALL, (2, 7))]
        middle = Row(Stimulus.of(second), (units[0].patch(),))
        rows.append(Row(Stimulus.of(base), (units[1].patch(middle),)))
        locations = {"source_0->source_1": (every, every), "source_1->base": (every, every)}
        wanted.append(theirs(gru(), base, units, locations=locations, mode="serial"))
    alike(our_gru(), rows, wanted)


@each_layer
@whole_or_not
def test_what_is_collected_at_every_step_of_a_gru_is_what_pyvene_collects(
    layer: int, features: FeatureIndices
) -> None:
    """It collects at every step, whatever it is told."""
    (base,) = inputs(layer, STEPS)
    unit = Unit(CELL, layer, base, ALL, ALL, features)
    assert (
        far(
            collected_by_us(our_gru(), base, unit),
            torch.cat(collected_by_pyvene(gru(), base, unit)),
        )
        <= TOLERANCE
    )


def test_pyvene_cannot_run_a_batch_through_a_gru_and_ours_is_one_pair_at_a_time() -> None:
    pairs = [inputs(seed, STEPS, STEPS) for seed in range(3)]
    units = [Unit(CELL, 1, source, ALL, ALL) for _, source in pairs]
    config = pyvene.IntervenableConfig([units[0].representation("t")])
    with torch.inference_mode(), pytest.raises(RuntimeError, match="shape mismatch"):
        pyvene.IntervenableModel(config, gru())(
            {"inputs_embeds": torch.stack([base for base, _ in pairs])},
            [{"inputs_embeds": torch.stack([source for _, source in pairs])}],
            {"sources->base": ([[list(ALL)] * 3], [[list(ALL)] * 3])},
        )
    rows = [row(base, unit) for (base, _), unit in zip(pairs, units, strict=True)]
    alike(
        our_gru(),
        rows,
        [theirs(gru(), base, [unit]) for (base, _), unit in zip(pairs, units, strict=True)],
    )
