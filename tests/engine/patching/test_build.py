"""From what a search asks to a row; what cannot be is said in one line, before anything runs."""

import pytest
import torch

from raysearch.core.events import Encoded
from raysearch.core.hypothesis import Intervention, Site, Subspace, Unit
from raysearch.engine.networks.point import Point
from raysearch.engine.patching.build import build_row
from raysearch.engine.patching.operations import Zero
from raysearch.engine.patching.random_rows import random_rows
from raysearch.engine.patching.rows import Patch, Row, Source
from raysearch.errors import (
    JobError,
    ModelError,
    NotYetError,
    PairsError,
    PositionError,
    RaysearchError,
)
from tests.engine import by_hand
from tests.engine.worlds import encoded_pairs, logits_of, residual, shared_world, world_of

WORLD = shared_world("llama")
PAIR = Encoded(
    index=7,
    base=(5, 6, 7, 8, 9),
    sources={"left": (10, 11, 12), "right": (13, 14, 15, 16)},
    base_positions={"here": (2,), "both": (1, 2), "last": (4,)},
    source_positions={
        "left": {"here": (1,), "both": (0,), "last": (2,), "only_left": (0, 1)},
        "right": {"here": (3,), "both": (2, 3), "last": (3,)},
    },
    answers={},
    counterfactual={},
)
ONE = Encoded(
    8,
    PAIR.base,
    {"left": PAIR.sources["left"]},
    PAIR.base_positions,
    {"left": PAIR.source_positions["left"]},
    {},
    {},
)
HERE = Site(0, "residual", "here")


def asked(*units: Unit, kind: str = "interchange", pair: Encoded = ONE) -> Row:
    return build_row(pair, Intervention(units, kind), WORLD.taps)


def lent(
    point: Point,
    ours,
    theirs,
    source: str = "left",
    ours_of=None,
    theirs_of=None,
    at: Point | None = None,
) -> Patch:
    run = Row(PAIR.sources[source])
    return Patch(point, ours, (Source(run, at or point, theirs, theirs_of),), features=ours_of)


# --- what may be asked
# ------------------------------------------------------------------------------------------------


def test_a_unit_is_the_tokens_of_its_position_taken_from_those_of_the_source() -> None:
    point = Point(1, "mlp_output")
    assert asked(Unit(Site(1, "mlp_output", "here"))) == Row(PAIR.base, (lent(point, (2,), (1,)),))


def test_a_unit_says_which_source_lends_it() -> None:
    point = Point(0, "residual")
    for name, theirs in (("left", (1,)), ("right", (3,))):
        assert asked(Unit(HERE, source=name), pair=PAIR) == Row(
            PAIR.base, (lent(point, (2,), theirs, name),)
        )
    both = asked(
        Unit(HERE, source="left"), Unit(Site(1, "residual", "both"), source="right"), pair=PAIR
    )
    assert both.patches == (
        lent(point, (2,), (1,)),
        lent(Point(1, "residual"), (1, 2), (2, 3), "right"),
    )


def test_a_unit_may_be_taken_from_another_layer_component_head_or_position() -> None:
    elsewhere = (
        (Site(3, "residual", "here"), Point(3, "residual"), (1,), None),
        (Site(2, "mlp_output", "here"), Point(2, "mlp_output"), (1,), None),
        (Site(0, "residual", "last"), Point(0, "residual"), (2,), None),
    )
    for site, at, theirs, features in elsewhere:
        patch = lent(Point(0, "residual"), (2,), theirs, theirs_of=features, at=at)
        assert asked(Unit(HERE, source_site=site)) == Row(PAIR.base, (patch,))
    unit = Unit(Site(1, "key", "here", 1), source_site=Site(3, "value", "last", 0))
    patch = lent(
        Point(1, "key"),
        (2,),
        (2,),
        ours_of=range(8, 16),
        theirs_of=range(8),
        at=Point(3, "value"),
    )
    assert asked(unit) == Row(PAIR.base, (patch,))


def test_what_is_taken_from_elsewhere_is_what_is_there_by_hand() -> None:
    unit = Unit(Site(1, "query", "here", 3), source_site=Site(3, "head", "last", 0))
    swap = by_hand.Swap(
        by_hand.place(WORLD.model, "llama", "query", 1, 3),
        (2,),
        by_hand.place(WORLD.model, "llama", "head", 3, 0),
        (2,),
    )
    wanted = by_hand.interchange(WORLD.model, ONE.base, ONE.sources["left"], [swap])
    assert torch.allclose(WORLD.oracle(asked(unit)), wanted, atol=1e-4)
    for path in WORLD.fast():
        assert torch.allclose(logits_of(path, [asked(unit)])[0], wanted, atol=1e-4)


def test_coordinates_count_within_the_head_where_one_is_named() -> None:
    (whole,) = asked(Unit(HERE, Subspace(coordinates=(3, 30)))).patches
    assert whole.features == whole.sources[0].features == (3, 30)
    (of_head,) = asked(Unit(Site(0, "head", "here", 2), Subspace(coordinates=(1, 7)))).patches
    assert of_head.features == of_head.sources[0].features == (17, 23)
    unit = Unit(
        Site(0, "key", "here", 1),
        Subspace(coordinates=(5,)),
        source_site=Site(2, "query", "here", 3),
    )
    (elsewhere,) = asked(unit).patches
    assert (elsewhere.features, elsewhere.sources[0].features) == ((13,), (29,))


def test_all_features_may_be_named_by_their_number() -> None:
    assert asked(Unit(HERE, Subspace("identity", 32))) == asked(Unit(HERE))
    assert asked(Unit(Site(0, "head", "here", 1), Subspace("identity", 8))) == asked(
        Unit(Site(0, "head", "here", 1))
    )


def test_a_kind_that_lends_nothing_needs_no_source() -> None:
    assert asked(Unit(HERE), kind="zero", pair=PAIR) == Row(
        PAIR.base, (Patch(Point(0, "residual"), (2,), (), Zero()),)
    )


def test_a_module_may_be_named_by_its_path() -> None:
    path = "model.layers.{layer}.post_attention_layernorm"
    assert asked(Unit(Site(2, path, "here"))) == Row(PAIR.base, (lent(Point(2, path), (2,), (1,)),))


# --- two units of one place
# -------------------------------------------------------------------------------------------


def test_two_units_may_write_the_same_from_the_same_place() -> None:
    (pair,) = encoded_pairs(9, 1, shortest=1, longest=1)  # its first token is its last
    row = build_row(pair, residual((0, "here"), (0, "last")), WORLD.taps)
    assert torch.equal(WORLD.oracle(row), WORLD.oracle(Row(row.base, row.patches[:1])))


@pytest.mark.parametrize(
    "units",
    [
        (Unit(Site(0, "head", "here", 0)), Unit(Site(0, "head", "here", 1))),
        (Unit(HERE, Subspace(coordinates=(1, 2))), Unit(HERE, Subspace(coordinates=(3,)))),
        (Unit(HERE), Unit(Site(0, "residual", "last"))),
        (Unit(HERE), Unit(Site(1, "residual", "here"))),
        (Unit(HERE), Unit(Site(0, "block_input", "here"))),
    ],
)
def test_two_units_that_do_not_overlap_are_both_done(units: tuple[Unit, Unit]) -> None:
    row = asked(*units)
    assert len(row.patches) == 2
    for part in row.patches:
        assert not torch.allclose(
            WORLD.oracle(row), WORLD.oracle(Row(row.base, (part,))), atol=1e-3
        )


@pytest.mark.parametrize(
    ("units", "kind"),
    [
        ((Unit(HERE), Unit(HERE, source_site=Site(1, "residual", "here"))), "interchange"),
        ((Unit(HERE), Unit(HERE, source_site=Site(0, "residual", "last"))), "interchange"),
        ((Unit(HERE), Unit(HERE, Subspace(coordinates=(3,)))), "interchange"),
        ((Unit(Site(0, "head", "here", 1)), Unit(Site(0, "head", "here"))), "interchange"),
        ((Unit(HERE), Unit(HERE)), "zero"),
        (
            (Unit(HERE, Subspace(coordinates=(1, 2))), Unit(HERE, Subspace(coordinates=(2, 3)))),
            "zero",
        ),
    ],
)
def test_two_units_that_write_one_token_from_two_places_are_refused(units, kind: str) -> None:
    component = units[0].site.component
    with pytest.raises(
        PositionError,
        match=f"pair 8: two units write token 2 of {component} in layer 0, each its own",
    ):
        asked(*units, kind=kind)


def test_so_are_two_that_take_from_two_sources() -> None:
    with pytest.raises(
        PositionError, match="pair 7: two units write token 2 of residual in layer 0"
    ):
        asked(Unit(HERE, source="left"), Unit(HERE, source="right"), pair=PAIR)


# --- what cannot be asked
# ---------------------------------------------------------------------------------------------


@pytest.fixture
def untouched():
    """A world whose model must not be run: what is asked is known to be impossible without. Its
    components are known."""
    for component in ("residual", "head", "key", "query"):
        WORLD.taps.of(component)
    ran: list[int] = []
    handle = WORLD.model.get_input_embeddings().register_forward_hook(lambda *_: ran.append(1))
    yield
    handle.remove()
    assert not ran


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    ("units", "kind", "error", "text"),
    [
        ((), "interchange", JobError, "an intervention without units changes nothing; name at "
                                      "least one"),
        ((Unit(HERE),), "swap", JobError, "'swap' is no operation; it may be "
                                          "interchange, zero, "),
        ((Unit(HERE),), "mean", JobError, "a mean ablation takes from other inputs, and there are none here"),
        ((Unit(HERE),), "constant", JobError, "'constant' is no operation; it may be "
                                              "interchange, zero, mean, resample"),
        ((Unit(HERE, Subspace("das", 4)),), "interchange", JobError, "das is no plain subspace; "
                                                                     "there are no featurizers"),
        ((Unit(HERE, Subspace("identity", 4)),), "interchange", NotYetError, "4 of 32 features are "
                                                                             "not supported yet"),
        ((Unit(HERE, Subspace("identity", 33)),), "interchange", JobError, "33 of 32 features"),
        ((Unit(Site(0, "head", "here", 1), Subspace("identity", 32)),), "zero", JobError, "32 of 8 features"),
        ((Unit(HERE, Subspace(coordinates=(3, 32))),), "zero", JobError, "residual in layer 0: "
                                                                         "coordinate 32; it has "
                                                                         "0..31"),
        ((Unit(HERE, Subspace(coordinates=(-1,))),), "zero", JobError, "coordinate -1; it has "
                                                                       "0..31"),
        ((Unit(HERE, Subspace(coordinates=())),), "zero", JobError, "no coordinate; it has 0..31"),
        ((Unit(HERE, Subspace(coordinates=(3, 3))),), "zero", JobError, "a coordinate twice; it "
                                                                        "has 0..31"),
        (
            (Unit(Site(2, "head", "here", 3), Subspace(coordinates=(8,))),), "zero", JobError,
            "head head 3 in layer 2: coordinate 8; it has 0..7",
        ),
        ((Unit(Site(0, "head", "here", 4)),), "zero", ModelError, "4 is no head of head in layer "
                                                                  "0; it has 0..3"),
        ((Unit(Site(0, "head", "here", -1)),), "zero", ModelError, "-1 is no head of head in layer "
                                                                   "0; it has 0..3"),
        ((Unit(Site(0, "key", "here", 2)),), "zero", ModelError, "2 is no head of key in layer 0; "
                                                                 "it has 0..1"),
        ((Unit(Site(0, "residual", "here", 0)),), "zero", JobError, "residual has no heads; name a "
                                                                    "head of head, query"),
        ((Unit(Site(4, "residual", "here")),), "zero", ModelError, "layer 4 has no residual in .*: "
                                                                   "0..3"),
        ((Unit(Site(-1, "residual", "here")),), "zero", ModelError, "layer -1 has no residual in "
                                                                    ".*: 0..3"),
        ((Unit(Site(0, "resid", "here")),), "zero", ModelError, "'resid' is no component; it may "
                                                                "be residual, "),
        ((Unit(Site(0, "residual", "there")),), "zero", PositionError, "pair 8: the base has no "
                                                                       "position 'there'; it has "
                                                                       "here, "),
        (
            (Unit(HERE, source_site=Site(0, "residual", "there")),), "interchange", PositionError,
            "pair 8: the left has no position 'there'; it has here, both, last, only_left",
        ),
        (
            (Unit(Site(0, "residual", "both")),), "interchange", PositionError,
            "pair 8: position 'both' has 2 tokens in the base, 'both' has 1 in left; a unit needs "
            "as many tokens in both",
        ),
        ((Unit(HERE, source="middle"),), "interchange", PairsError, "pair 8: has no source "
                                                                    "'middle'; it has left"),
        (
            (Unit(Site(0, "head", "here", 1), source_site=HERE),), "interchange", JobError,
            "head head 1 in layer 0 has 8 features, residual in layer 0 32; take from a site of "
            "the same width",
        ),
        (
            (Unit(Site(0, "query", "here"), source_site=Site(0, "key", "here")),), "interchange", JobError,
            "query in layer 0 has 32 features, key in layer 0 16; take",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_in_one_line(
    units, kind: str, error: type[RaysearchError], text: str
) -> None:
    with pytest.raises(error, match=text) as refused:
        asked(*units, kind=kind)
    assert "\n" not in str(refused.value)


@pytest.mark.usefixtures("untouched")
def test_a_unit_must_say_from_which_of_several_sources_it_takes() -> None:
    with pytest.raises(
        PairsError,
        match=r"pair 7: has 2 sources \(left, right\); a unit must say which it takes from",
    ):
        asked(Unit(HERE), pair=PAIR)
    with pytest.raises(PairsError, match=r"pair 7: has 0 sources \(none\)"):
        asked(Unit(HERE), pair=Encoded(7, PAIR.base, {}, PAIR.base_positions, {}, {}, {}))


@pytest.mark.parametrize("family", ["mixtral", "qwen2_moe"])
def test_a_component_that_a_family_lacks_is_named(family: str) -> None:
    with pytest.raises(ModelError, match="mlp_activation") as refused:
        build_row(
            ONE, Intervention((Unit(Site(0, "mlp_activation", "here")),)), shared_world(family).taps
        )
    assert "\n" not in str(refused.value)


def test_trials_try_each_component_a_head_of_each_and_all_at_once() -> None:
    components = ("residual", "head", "mlp_activation", "embedding")
    pairs = encoded_pairs(0, 5)
    rows = random_rows(pairs, WORLD.taps, 4, components)
    assert rows == random_rows(pairs, WORLD.taps, 4, components)
    seen = {patch.point.component for row in rows for patch in row.patches}
    assert seen == set(components)
    assert all(
        p.features is not None for row in rows for p in row.patches if p.point.component == "head"
    )
    assert max(len(row.patches) for row in rows) == 2 + len(components)
    several = random_rows([PAIR], WORLD.taps, 4, components)
    assert all(row.patches for row in several)
    lent = {source.run.base for row in several for patch in row.patches for source in patch.sources}
    assert lent == set(PAIR.sources.values())  # one or the other
    assert random_rows([], WORLD.taps, 4, components) == []
    assert world_of(WORLD.model).network.example() == (0, 1, 2)
