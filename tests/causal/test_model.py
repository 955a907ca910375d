"""Causal models, inputs, pairs and their sampling."""

import random

import pytest

from raysearch import CausalModel, Input, Problem, Setting, Variable, draw_pairs
from raysearch.causal import differing_shares, pair_drawing
from raysearch.errors import CausalModelError, PairsError


def _sum() -> CausalModel:
    digits = tuple(range(4))
    return CausalModel(
        (
            Variable("a", digits),
            Variable("b", digits),
            Variable("ab"),
            Variable("c", digits),
            Variable("total"),
        ),
        {"ab": ("a", "b"), "total": ("ab", "c")},
        {"ab": lambda a, b: a + b, "total": lambda ab, c: ab + c},
        "total",
    )


def _problem(digits: int = 4) -> Problem:
    def sample(rng: random.Random) -> tuple[Setting, Setting]:
        return tuple({n: rng.randrange(digits) for n in "abc"} for _ in range(2))  # type: ignore[return-value]

    def render(values: Setting) -> Input:
        return Input(f"{values['a']}+{values['b']}+{values['c']}=", {"a": (0, 1)}, dict(values))

    return Problem("sum", _sum(), sample, render, str, ("a",))


def test_run_works_out_every_variable() -> None:
    assert _sum().run({"a": 1, "b": 2, "c": 3}) == {"a": 1, "b": 2, "ab": 3, "c": 3, "total": 6}


def test_interchange_takes_each_variable_from_its_own_source() -> None:
    model = _sum()
    base, other, third = (
        {"a": 1, "b": 2, "c": 3},
        {"a": 0, "b": 0, "c": 1},
        {"a": 3, "b": 3, "c": 0},
    )
    assert model.interchange(base, {"ab": other}) == 0 + 3
    assert model.interchange(base, {"c": other}) == 3 + 1
    assert model.interchange(base, {"ab": third, "c": other}) == 6 + 1
    assert model.interchange(base, {"total": third}) == 6
    assert model.interchange(base, dict.fromkeys(model.names, base)) == 6


@pytest.mark.parametrize(
    ("parents", "mechanisms", "output", "says"),
    [
        ({"a": ("b",), "b": ("a",)}, {"a": abs, "b": abs}, "a", "cycle: a -> b -> a"),
        ({"a": ("b",)}, {}, "a", "'a' has parents b but no mechanism"),
        ({}, {}, "z", "'z' is no variable; the model has a, b"),
        ({"a": ("q",)}, {"a": abs}, "a", "'q' is no variable"),
    ],
)
def test_a_model_that_cannot_be_run_says_why(parents, mechanisms, output, says) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(CausalModelError, match=says):
        CausalModel((Variable("a"), Variable("b")), parents, mechanisms, output)


def test_a_variable_declared_twice_is_refused() -> None:
    with pytest.raises(CausalModelError, match="declared twice"):
        CausalModel((Variable("a"), Variable("a")), {}, {}, "a")


def test_values_outside_the_domain_and_missing_inputs_are_refused() -> None:
    with pytest.raises(
        CausalModelError, match=r"'a': 9 is outside its domain; it may be 0, 1, 2, 3"
    ):
        _sum().run({"a": 9, "b": 0, "c": 0})
    with pytest.raises(CausalModelError, match="input 'c' has no value"):
        _sum().run({"a": 1, "b": 0})
    with pytest.raises(CausalModelError, match="'zz' is no variable"):
        _sum().interchange({"a": 1, "b": 0, "c": 0}, {"zz": {}})  # type: ignore[dict-item]


def test_a_span_outside_its_text_is_refused() -> None:
    for span in ((2, 9), (3, 3), (-1, 2)):
        with pytest.raises(PairsError, match="is no span of 'abc'"):
            Input("abc", {"x": span})
    with pytest.raises(PairsError, match="empty"):
        Input("")


def test_the_same_seed_draws_the_same_pairs_and_another_seed_others() -> None:
    counts = {"test": 50, "fit": 20, "holdout": 10}
    first = draw_pairs(_problem(), ("a", "ab"), counts, 0)
    assert first == draw_pairs(_problem(), ("a", "ab"), counts, 0)
    assert [p.base.text for p in first] != [
        p.base.text for p in draw_pairs(_problem(), ("a", "ab"), counts, 1)
    ]
    assert [p.index for p in first] == list(range(80))


def test_no_base_and_source_stand_in_two_splits() -> None:
    pairs = draw_pairs(_problem(3), ("a",), {"test": 300, "fit": 300, "holdout": 100}, 0)
    places: dict[tuple[str, str], set[str]] = {}
    for p in pairs:
        places.setdefault((p.base.text, p.sources["source"].text), set()).add(p.split)
    assert {len(v) for v in places.values()} == {1}
    assert {s for v in places.values() for s in v} == {"test", "fit", "holdout"}


def test_no_value_of_a_disjoint_variable_stands_in_two_splits_and_others_may() -> None:
    pairs = draw_pairs(_problem(4), ("a",), {"test": 200, "holdout": 100}, 1, disjoint=("ab",))
    places: dict[object, set[str]] = {}
    others: dict[object, set[str]] = {}
    for p in pairs:
        for side in (p.base, *p.sources.values()):
            places.setdefault(side.values["ab"], set()).add(p.split)
            others.setdefault(side.values["c"], set()).add(p.split)
    assert {len(v) for v in places.values()} == {1}
    assert {s for v in places.values() for s in v} == {"test", "holdout"}
    assert max(len(v) for v in others.values()) == 2
    assert [sum(p.split == s for p in pairs) for s in ("test", "holdout")] == [200, 100]


def test_disjoint_variables_that_leave_a_split_empty_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pair_drawing, "MOST_MISSES", 10_000)  # else some seconds of drawing in vain
    with pytest.raises(PairsError, match=r"or name less in pairs.disjoint \(a, b, c\)"):
        draw_pairs(_problem(1), ("a",), {"test": 5, "holdout": 5}, 0, disjoint=("a", "b", "c"))


def test_a_domain_too_small_for_its_splits_is_refused() -> None:
    with pytest.raises(PairsError, match="domain is too small"):
        draw_pairs(_problem(1), ("a",), {"test": 5, "fit": 5, "holdout": 5}, 0)


def test_counterfactuals_are_the_models_interchanges() -> None:
    for p in draw_pairs(_problem(), ("a", "ab", "c"), {"test": 30}, 0):
        b, s = p.base.values, p.sources["source"].values
        assert p.counterfactual["a"] == str(s["a"] + b["b"] + b["c"])  # type: ignore[operator]
        assert p.counterfactual["ab"] == str(s["a"] + s["b"] + b["c"])  # type: ignore[operator]
        assert p.answers == {"base": str(b["total"]), "source": str(s["total"])}


def test_the_share_of_pairs_that_tell_two_variables_apart() -> None:
    def agree(v: str, w: str) -> dict[str, str]:
        return {"v": v, "w": w, "u": v}

    shares = differing_shares(
        [agree("1", "1"), agree("1", "2"), agree("2", "3"), agree("4", "5")], ("v", "w", "u")
    )
    assert shares == {("v", "w"): 0.75, ("v", "u"): 0.0, ("w", "u"): 0.75}
    with pytest.raises(PairsError):
        differing_shares([], ("v", "w"))
