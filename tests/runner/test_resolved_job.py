"""From a job to its question: the space on a model, what a replica must know of, and each mistake
in one line."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from raysearch.core.hypothesis import Intervention, Site, Subspace, Unit
from raysearch.core.model_facts import ComponentFacts, ModelFacts
from raysearch.core.prompt_format import PLAIN, PromptFormat
from raysearch.core.space import Grid, HypothesisSpace
from raysearch.errors import JobError
from raysearch.job import Job
from raysearch.runner.resolution.resolve import resolve
from raysearch.runner.resolution.resolved_job import ResolvedJob
from raysearch.runner.session.pools import spec_of
from raysearch.stats.anytime_test import AnytimeTest
from raysearch.stats.betting_test import BettingTest
from raysearch.stats.match_test import MatchTest

EVERY = tuple(range(30))
COMPONENTS = (
    ComponentFacts("residual", EVERY, 576, 0),
    ComponentFacts("embedding", (None,), 576, 0),
    ComponentFacts("head", EVERY, 576, 9),
    ComponentFacts("query", EVERY, 576, 9),
    ComponentFacts("key", EVERY, 192, 3),
    ComponentFacts("model.layers.{layer}.mlp.gate_proj", EVERY, 1536, 0),
    ComponentFacts("model.norm", (None,), 576, 0),
    ComponentFacts("mlp_output", (3, 7, 11), 576, 0),
)
FACTS = ModelFacts(30, 576, 9, "digest", "float32", "cpu", "replay", COMPONENTS)
"""SmolLM2-135M as an engine would tell it, with an MLP in some layers only."""


def _job(**space: Any) -> Job:
    return Job.parse(
        {
            "name": "x",
            "model": {"path": "owner/SmolLM2"},
            "problem": {"use": "raysearch.problems.add_three", "options": {"highest": 9}},
            "pairs": {"test": 4, "holdout": 2},
            "space": {"variables": ["a", "b"], **space},
        }
    )


def _space(**space: Any) -> HypothesisSpace:
    return resolve(_job(**space)).space(FACTS)


def _units(*units: dict[str, Any]) -> list[list[dict[str, Any]]]:
    return [[{"layer": 3, "position": "a", **unit} for unit in units]]


def test_a_job_that_says_nothing_of_the_space_searches_the_residual_everywhere() -> None:
    question = resolve(Job.parse({**_job().model_dump(by_alias=True), "space": {}}))
    positions = ("a", "plus1", "b", "plus2", "c", "last")
    assert question.space(FACTS) == HypothesisSpace(
        ("a", "b", "c", "sum_ab", "total"), (Grid("residual", EVERY, (None,), positions),)
    )
    assert (question.components, question.positions) == (("residual",), positions)


def test_each_component_has_its_own_heads_and_layers() -> None:
    space = _space(components=[c.name for c in COMPONENTS], positions=["last"], layers="all")
    assert {g.component: (g.layers, g.heads) for g in space.grids} == {
        "residual": (EVERY, (None,)),
        "embedding": ((None,), (None,)),
        "head": (EVERY, tuple(range(9))),
        "query": (EVERY, tuple(range(9))),
        "key": (EVERY, (0, 1, 2)),
        "model.layers.{layer}.mlp.gate_proj": (EVERY, (None,)),
        "model.norm": ((None,), (None,)),
        "mlp_output": ((3, 7, 11), (None,)),
    }


def test_what_the_model_has_once_is_taken_once_whatever_the_layers() -> None:
    space = _space(
        components=["embedding", "model.norm", "residual"], positions=["last"], layers=[4, 5]
    )
    assert [g.layers for g in space.grids] == [(None,), (None,), (4, 5)]
    assert len(space) == 2 * 4


def test_heads_are_each_by_itself_or_some_or_all_at_once() -> None:
    at: dict[str, Any] = {"positions": ["last"], "layers": [1]}
    heads = [
        g.heads for g in _space(components=["residual", "head", "key"], heads=[0, 2], **at).grids
    ]
    assert heads == [(None,), (0, 2), (0, 2)]
    assert [g.heads for g in _space(components=["query", "key"], heads="joint", **at).grids] == [
        (None,),
        (None,),
    ]


def test_coordinates_are_those_of_a_head_where_there_is_one() -> None:
    chosen = {"coordinates": {"from": 60, "to": 63}}
    space = _space(
        components=["query", "residual"], layers=[1], positions=["last"], subspaces=["full", chosen]
    )
    assert {g.subspaces for g in space.grids} == {
        (Subspace(), Subspace(coordinates=(60, 61, 62, 63)))
    }
    assert len(space) == 2 * (9 + 1) * 2


def test_units_alone_are_all_that_is_searched_and_what_they_name_is_known_to_the_replicas() -> None:
    first = {
        "layer": 4,
        "component": "head",
        "head": 8,
        "position": "b",
        "subspace": {"coordinates": [5, 0]},
    }
    second = {
        "layer": 2,
        "position": "a",
        "source_site": {"component": "mlp_output", "layer": 7, "position": "plus2"},
    }
    question = resolve(
        _job(units=[[first, second], [{"component": "embedding", "position": "last"}]])
    )
    space = question.space(FACTS)
    assert [i.units for i in space.interventions()] == [
        (
            Unit(Site(2, "residual", "a"), source_site=Site(7, "mlp_output", "plus2")),
            Unit(Site(4, "head", "b", 8), Subspace(coordinates=(0, 5))),
        ),
        (Unit(Site(0, "embedding", "last")),),
    ]
    assert len(space) == 4
    assert question.components == ("head", "residual", "mlp_output", "embedding")
    assert question.positions == ("b", "a", "plus2", "last")
    work = spec_of(question, question.job)
    assert (work.components, work.positions, work.settings.capture_bytes) == (
        question.components,
        question.positions,
        None,
    )


def test_positions_may_be_tokens_of_a_named_one_and_tokens_by_index() -> None:
    positions = [{"a": {"take": "first"}}, "b", {"x": {"tokens": [0, 2]}}, "token_4"]
    question = resolve(
        _job(
            layers=[3],
            positions=positions,
            units=_units({"position": "x"}, {"position": "a.first"}),
        )
    )
    names = ("a.first", "b", "x", "token_4")
    assert question.positions == names
    assert question.space(FACTS).grids == (Grid("residual", (3,), (None,), names),)
    assert all(
        i.tokens == {"x": (0, 2)} for p in question.pairs for i in (p.base, *p.sources.values())
    )
    assert {i.stimulus for p in question.pairs for i in (p.base,)} == {None}


def test_all_positions_are_as_many_as_the_replicas_say_there_are_tokens() -> None:
    question = resolve(_job(layers=[3], positions="all", units=_units({"position": "b"})))
    assert question.positions == ("token_*", "b")
    assert question.job.space.positions == "all"
    (grid,) = question.space(replace(FACTS, tokens=3)).grids
    assert grid.positions == ("token_0", "token_1", "token_2")


@pytest.mark.parametrize(
    ("positions", "says"),
    [
        (["a.lst"], "space.positions: 'a.lst' is no position of add_three; .*it has a, plus1"),
        ([{"plus": {"take": "last"}}], "space.positions: 'plus.last' is no position of add_three"),
        (
            [{"a": {"tokens": [1]}}],
            "space.positions: 'a' is a position of add_three already; name these tokens otherwise",
        ),
    ],
)
def test_a_position_that_nothing_has_is_refused_by_name(positions: list[Any], says: str) -> None:
    with pytest.raises(JobError, match=says):
        resolve(_job(positions=positions))


def test_memory_goes_to_the_replicas_in_gib() -> None:
    job = _job()
    wanted = job.model_copy(update={"resources": job.resources.model_copy(update={"memory": 1.5})})
    question = resolve(wanted)
    assert spec_of(question, question.job).settings.capture_bytes == 3 * 2**29


def test_a_unit_of_the_grid_counts_once_and_so_does_one_that_names_the_only_source() -> None:
    units = [
        *_units({"position": "last"}),
        *_units({"position": "last", "layer": 4, "source": "source"}),
    ]
    space = _space(layers=[3, 4], positions=["last"], units=units)
    assert len(space) == 2 * 2
    assert len({i.id for i in space.interventions()}) == 2
    assert next(iter(space.interventions())) == Intervention((Unit(Site(3, "residual", "last")),))


@pytest.mark.parametrize(
    ("space", "says"),
    [
        ({"layers": [2, 40]}, "space.layers: 40 is no layer of SmolLM2; it has 0..29"),
        (
            {"layers": {"from": 28, "to": 30}},
            "space.layers: 30 is no layer of SmolLM2; it has 0..29",
        ),
        (
            {"components": ["mlp_output"], "layers": [3, 4]},
            "space.layers: 4 is no layer of SmolLM2 that has mlp_output; it is in 3, 7, 11",
        ),
        (
            {"components": ["query"], "heads": [12]},
            "space.heads: 12 is no head of query in SmolLM2; it has 0..8",
        ),
        (
            {"components": ["query", "key"], "heads": [3]},
            "space.heads: 3 is no head of key in SmolLM2; it has 0..2",
        ),
        (
            {"heads": [1]},
            r"space.heads: \[1\] given, and none of space.components has heads \(they are "
            r"residual\)",
        ),
        (
            {"components": ["head"], "subspaces": [{"coordinates": [64]}]},
            "space.subspaces: 64 is no coordinate of a head in SmolLM2; it has 0..63",
        ),
        (
            {
                "components": ["head", "residual"],
                "heads": "joint",
                "subspaces": [{"coordinates": {"from": 0, "to": 576}}],
            },
            "space.subspaces: 576 is no coordinate of head in SmolLM2; it has 0..575",
        ),
        (
            {"positions": ["plus3"]},
            "space.positions: 'plus3' is no position of add_three; did you mean 'plus2'",
        ),
        (
            {"units": _units({"position": "plus3"})},
            "space.units.0.0.position: 'plus3' is no position of add_three",
        ),
        (
            {"units": _units({}, {"layer": 4, "source_site": {"position": "z"}})},
            "space.units.0.1.source_site.position: 'z' is no position of add_three; it has a, "
            "plus1, b, plus2, c, last",
        ),
        (
            {"units": _units({"source": "other"})},
            "space.units.0.0.source: 'other' is no source of add_three; it has source",
        ),
        (
            {"units": _units({"layer": 30})},
            "space.units.0.0.layer: 30 is no layer of SmolLM2; it has 0..29",
        ),
        (
            {"units": _units({"component": "embedding"})},
            "space.units.0.0.layer: 3 is no layer of embedding, which SmolLM2 has once; leave "
            "layer out",
        ),
        (
            {"units": _units({"source_site": {"layer": 31}})},
            "space.units.0.0.source_site.layer: 31 is no layer of SmolLM2; it has 0..29",
        ),
        (
            {"units": _units({"component": "key", "head": 3})},
            "space.units.0.0.head: 3 is no head of key in SmolLM2; it has 0..2",
        ),
        (
            {"units": _units({"head": 0})},
            "space.units.0.0.head: 0 is no head of residual in SmolLM2; it has none",
        ),
        (
            {
                "units": _units(
                    {"component": "query", "head": 5, "source_site": {"component": "key"}}
                )
            },
            "space.units.0.0.source_site.head: 5 is no head of key in SmolLM2; it has 0..2",
        ),
        (
            {
                "units": _units(
                    {"component": "query", "head": 1, "subspace": {"coordinates": [3, 99]}}
                )
            },
            "space.units.0.0.subspace: 99 is no coordinate of a head of query in SmolLM2; it has "
            "0..63",
        ),
        (
            {"units": _units({"source_site": {"component": "query", "head": 3}})},
            "space.units.0.0.source_site: head 3 of query has 64 coordinates in SmolLM2, residual "
            "576; take it from a site as wide",
        ),
    ],
)
def test_what_the_model_or_the_pairs_lack_is_one_line_that_says_what_they_have(
    space: dict[str, Any], says: str
) -> None:
    with pytest.raises(JobError, match=says) as e:
        _space(**space)
    assert "\n" not in str(e.value)


def test_a_head_is_as_wide_as_a_head_of_another_component() -> None:
    taken = {
        "component": "query",
        "head": 5,
        "source_site": {"component": "key", "head": 2, "layer": 8},
    }
    assert len(_space(units=_units(taken))) == 2


@given(
    alone=st.booleans(),
    heads=st.sampled_from(["all", "joint", [0, 2]]),
    components=st.lists(
        st.sampled_from(["residual", "head", "key", "embedding"]), min_size=1, unique=True
    ),
    subspaces=st.sampled_from([["full"], [{"coordinates": {"from": 0, "to": 3}}, "full"]]),
    layers=st.sampled_from(["all", [3, 11]]),
    units=st.lists(st.sampled_from(["a", "b", "last"]), min_size=1, unique=True),
)
def test_the_job_as_written_down_asks_the_same_question(
    alone: bool,
    heads: Any,
    components: list[str],
    subspaces: list[Any],
    layers: Any,
    units: list[str],
) -> None:
    sets = [[{"layer": 3, "position": p}, {"layer": 4, "position": "last"}] for p in units]
    grid = {"heads": heads, "components": components, "subspaces": subspaces, "layers": layers}
    if heads == [0, 2] and not {"head", "key"} & set(components):
        del grid["heads"]
    question = resolve(_job(units=sets, **({} if alone else grid)))
    written = yaml.safe_load(question.job.to_yaml())
    again = ResolvedJob(Job.parse(written), question.pairs)
    assert again == question == resolve(Job.parse(written))
    assert again.space(FACTS) == question.space(FACTS)
    assert (again.components, again.positions) == (question.components, question.positions)
    assert bool(question.space(FACTS).grids) != alone


def _pairs(path: Path) -> Path:
    def side(a: int, b: int, more: bool) -> dict[str, Any]:
        spans = {"a": [0, 1], "b": [2, 3]} | ({"plus": [1, 2]} if more else {})
        return {"text": f"{a}+{b}+0=", "positions": spans}

    lines = [
        {
            "base": side(n, 2, n == 1),
            "source": side(5, n, False),
            "answers": {"base": str(n + 2), "source": str(n + 5)},
            "counterfactual": {"a": "7"},
            "split": "test",
        }
        for n in range(1, 4)
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def test_units_on_a_file_of_pairs_need_only_the_positions_that_they_name(tmp_path: Path) -> None:
    def question(**space: Any) -> ResolvedJob:
        raw = {
            "name": "x",
            "model": {"path": "o/m"},
            "problem": {"pairs": str(_pairs(tmp_path / "p.jsonl"))},
        }
        return resolve(Job.parse({**raw, "space": space}))

    alone = question(units=_units({"position": "b"}))
    assert (alone.positions, alone.variables, len(alone.space(FACTS))) == (("b",), ("a",), 1)
    with pytest.raises(JobError, match=r"p.jsonl: .* has the positions"):
        question()
    with pytest.raises(
        JobError,
        match=r"space.units.0.0.position: 'plus' is no position of p.jsonl; it has a, b, last",
    ):
        question(units=_units({"position": "plus"}))
    with pytest.raises(
        JobError, match=r"space.units.0.0.source: 'x' is no source of p.jsonl; it has source"
    ):
        question(units=_units({"source": "x"}))


def _line(split: str = "test", **changes: Any) -> dict[str, Any]:
    side = {"text": "1 2", "positions": {"p": [0, 1]}}
    answers = {name: f" {at}" for at, name in enumerate(("base", "a", "b"))}
    expected = {"x<-a": " 1", "y<-b": " 2", "x<-a,y<-b": " 3"}
    return {
        "base": side,
        "sources": {"a": side, "b": side},
        "answers": answers,
        "counterfactual": expected,
        "split": split,
        **changes,
    }


def _of_file(
    folder: Path, answer: dict[str, Any] | None = None, lines: int = 1, **space: Any
) -> ResolvedJob:
    (folder / "pairs.jsonl").write_text("\n".join([json.dumps(_line())] * lines))
    raw = {
        "name": "x",
        "model": {"path": "owner/SmolLM2"},
        "problem": {"pairs": "pairs.jsonl"},
        "space": space,
        "answer": answer or {},
    }
    return resolve(Job.parse(raw, folder=folder))


BOTH = [{"layer": 3, "position": "p", "source": "a"}, {"layer": 4, "position": "p", "source": "b"}]


def test_a_grid_is_gone_through_for_each_source_that_lends_alone_and_sets_say_who_lends(
    tmp_path: Path,
) -> None:
    space = _of_file(tmp_path, layers=[0, 1], positions=["p"], units=[BOTH]).space(FACTS)
    found = {
        (h.variable, tuple((u.site.layer, u.source) for u in h.intervention.units)) for h in space
    }
    assert found == {
        *(("x<-a", ((layer, "a"),)) for layer in (0, 1)),
        *(("y<-b", ((layer, "b"),)) for layer in (0, 1)),
        ("x<-a,y<-b", ((3, "a"), (4, "b"))),
    }
    assert len(space) == len(found)


@pytest.mark.parametrize(
    ("space", "answer", "says"),
    [
        (
            {},
            {},
            "space.units: nothing takes from just a and b, as 'x<-a,y<-b' asks; give a set with a "
            "unit from each",
        ),
        (
            {"units": [[{"layer": 3, "position": "p"}]]},
            {},
            "space.units.0.0.source: missing; pairs have the sources a, b",
        ),
        (
            {},
            {"compare": "choices"},
            "answer.compare: choices, and pairs.jsonl lists none; give each pair its choices",
        ),
    ],
)
def test_what_several_sources_and_choices_lack_is_said(
    tmp_path: Path, space: dict[str, Any], answer: dict[str, Any], says: str
) -> None:
    with pytest.raises(JobError) as e:
        _of_file(tmp_path, answer, **space).space(FACTS)
    assert says in str(e.value)


def test_replicas_are_told_how_texts_are_put_and_what_counts() -> None:
    raw = {
        **_job().model_dump(by_alias=True),
        "answer": {"compare": "sequence", "aliases": {" a": [" b"]}},
    }
    raw["model"] = {
        "path": "owner/SmolLM2",
        "prompt": {"chat_template": True, "special_tokens": False},
    }
    job = Job.parse(raw)
    assert spec_of(resolve(job), job).model.prompt_format == PromptFormat(
        True, False, "sequence", {" a": (" b",)}
    )
    assert spec_of(resolve(_job()), _job()).model.prompt_format == PLAIN


def _test_of(question: ResolvedJob) -> AnytimeTest:
    space = question.space(FACTS)
    return question.test(question.proposer(space, FACTS), space)


def _scored(**rooms: Any) -> Job:
    return Job.parse({**_job().model_dump(by_alias=True), **rooms})


def test_a_test_on_a_score_measures_it_and_takes_fit_pairs_for_its_scale() -> None:
    question = resolve(
        _scored(
            test={"score": "logit_difference"},
            answer={"scores": ["kl"]},
            pairs={"test": 4, "fit": 3, "holdout": 2},
        )
    )
    assert question.job.answer.scores == ("kl", "logit_difference")
    assert spec_of(question, question.job).settings.scores == ("kl", "logit_difference")
    assert sum(p.split == "fit" for p in question.pairs) == 12
    assert isinstance(_test_of(question), BettingTest)
    by_probability = resolve(_scored(test={"score": "probability"}))
    assert by_probability.job.answer.scores == ("probability",)
    for_weights = [p for p in by_probability.pairs if p.split == "fit"]
    assert len(for_weights) in (32, 128), "those of weights alone, with or without spare ones"
    bare = resolve(_job())
    assert (bare.job.answer.scores, spec_of(bare, bare.job).settings.scores) == ((), ())
    assert isinstance(_test_of(bare), MatchTest)


@pytest.mark.parametrize(
    ("rooms", "said"),
    [
        (
            {"pairs": {"test": 4, "fit": 0}, "space": {"subspaces": [{"das": [2]}]}},
            "pairs.fit: 0 leaves no pairs to fit",
        ),
        (
            {"controls": ["arbitrary_labels"]},
            r"controls: arbitrary_labels is of subspaces that are trained \(das, boundless",
        ),
        (
            {
                "controls": ["arbitrary_labels"],
                "space": {"subspaces": [{"pca": [2]}]},
                "pairs": {"test": 4, "fit": 9},
            },
            "controls: arbitrary_labels is of subspaces that are trained",
        ),
        (
            {"controls": ["placebo", "random_subspace"]},
            "controls: random_subspace is as large as the subspace it stands",
        ),
        (
            {"test": {"use": "fixed", "pairs": 9}},
            "test.pairs: 9 pairs of every hypothesis, and pairs.test gives 4; raise",
        ),
    ],
)
def test_what_a_job_asks_in_vain_is_said_before_anything_is_drawn(
    rooms: dict[str, Any], said: str
) -> None:
    with pytest.raises(JobError, match=said):
        resolve(_scored(**{"pairs": {"test": 4, "holdout": 2}, **rooms}))


@pytest.mark.parametrize(
    ("rooms", "said"),
    [
        (
            {"pairs": {"test": 4, "holdout": 2, "kinds": "both"}},
            "test.score: logit_difference compares",
        ),
        (
            {"pairs": {"test": 4, "holdout": 2, "kinds": "unfiltered"}},
            "test.score: logit_difference compares",
        ),
        ({"pairs": {"test": 4, "holdout": 2, "fit": 0}}, "pairs.fit: 0 leaves no pairs"),
        ({"answer": {"compare": "sequence"}}, "answer.compare: sequence is all right or wrong"),
    ],
)
def test_a_logit_difference_that_cannot_be_judged_is_said_before_anything_runs(
    rooms: dict[str, Any], said: str
) -> None:
    with pytest.raises(JobError, match=said):
        resolve(_scored(test={"score": "logit_difference"}, **rooms))
