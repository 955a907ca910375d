"""The job file: what is accepted, what is refused, and how it is said."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from raysearch.core.featurizers import featurizers
from raysearch.core.hypothesis import Site, Unit
from raysearch.errors import JobError
from raysearch.job import Job
from raysearch.job.error_messages import keys_at
from raysearch.job.keys import ModelKeys
from raysearch.job.unit_keys import intervention_of

SMALL = {
    "name": "x",
    "model": {"path": "owner/model"},
    "problem": {"use": "raysearch.problems.add_three"},
}


def _file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    return path


def _load(tmp_path: Path, changes: dict[str, object], sets: tuple[str, ...] = ()) -> Job:
    raw = {**SMALL, **changes}
    return Job.load(_file(tmp_path, yaml.safe_dump(raw)), sets)


ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("path", sorted((ROOT / "jobs").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_job_of_the_repository_is_a_job(path: Path) -> None:
    text = path.read_text()
    if "../models/" in text and not (ROOT / "models").is_dir():
        pytest.skip("no models/: make install fetches it")
    job = Job.load(path)
    assert job.name == path.stem
    assert text.startswith("# "), "a job begins with what it asks"


def test_defaults_are_those_of_the_contract(tmp_path: Path) -> None:
    job = _load(tmp_path, {})
    assert (job.model.dtype, job.model.revision) == ("float32", None)
    assert (
        job.pairs.test,
        job.pairs.fit,
        job.pairs.holdout,
        job.pairs.seed,
        job.pairs.solved_only,
    ) == (
        512,
        512,
        128,
        0,
        True,
    )
    assert (job.test.threshold, job.test.false_accept, job.test.miss, job.test.max_pairs) == (
        0.8,
        0.05,
        0.05,
        512,
    )
    resources = job.resources
    assert (resources.replicas, resources.gpus, resources.cpus, resources.rows) == (
        "auto",
        "auto",
        1,
        64,
    )
    assert resources.memory == "auto"
    space = job.space
    assert (space.layers, space.components, space.heads) == ("all", ("residual",), "all")
    assert (space.positions, space.subspaces, space.units) == (None, ("full",), ())
    assert job.test.claim == "auto"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"spce": {}}, r"x.yaml: spce: unknown key; did you mean 'space'\? allowed: name, model"),
        (
            {"space": {"layer": [1]}},
            r"x.yaml: space.layer: unknown key; did you mean 'layers'\? allowed: variables",
        ),
        (
            {"space": {"layers": {"from": 1, "to": 3, "stop": 2}}},
            r"space.layers.stop: unknown key; did you mean 'step'",
        ),
        ({"space": {"layers": {"from": 4, "to": 3}}}, "space.layers: from 4 to 3 holds no layer"),
        ({"space": {"layers": [-1]}}, r"space.layers.0: .*greater than or equal to 0 \(got -1\)"),
        (
            {"space": {"layers": "every"}},
            r"space.layers: should be all, a list such as .*got 'every'",
        ),
        ({"space": {"positions": ["a", "a"]}}, "space: positions names 'a' twice"),
        (
            {"space": {"components": ["resdual"]}},
            r"space.components.0: 'resdual' is no component; did you mean 'residual'\?",
        ),
        (
            {"space": {"components": ["zzz!"]}},
            "space.components.0: 'zzz!' is no module path; write it as in model",
        ),
        (
            {"space": {"components": ["model.layers.{i}.mlp"]}},
            r"space.components.0: 'model.*' is no module path; write it",
        ),
        ({"space": {"components": ["head", "head"]}}, "space: components names 'head' twice"),
        (
            {"space": {"components": []}},
            "space: there is nowhere to look: name one of components, or give units",
        ),
        ({"space": {"positions": []}}, "space: positions names none, and the grid needs one"),
        (
            {"space": {"positions": "every"}},
            r"space.positions: should be all, or a list such as .*\(got 'every'\)",
        ),
        (
            {"space": {"positions": [3]}},
            r"space.positions.0: should be a name, {country: .*\(got 3\)",
        ),
        (
            {"space": {"positions": [{"a": {"take": "left"}}]}},
            r"space.positions.0: take should be first, last, align_r",
        ),
        (
            {"space": {"positions": [{"a": {"tokens": [1, 1]}}]}},
            "space.positions.0: tokens names 1 twice",
        ),
        (
            {"space": {"positions": [{"a": {"tokens": []}}]}},
            r"space.positions.0: tokens should be indices .*got \[\]",
        ),
        (
            {"space": {"positions": [{"last": {"tokens": [1]}}]}},
            "space.positions.0: 'last' has its tokens already",
        ),
        (
            {"space": {"positions": ["a.last", {"a": {"take": "last"}}]}},
            "space: positions names 'a.last' twice",
        ),
        (
            {
                "space": {
                    "positions": [{"a": {"tokens": [1]}}],
                    "units": [[{"layer": 0, "position": {"a": {"tokens": [2]}}}]],
                }
            },
            r"space: position 'a' is tokens \[1\] and \[2\]; give it one meaning",
        ),
        (
            {"propose": {"use": "refined"}},
            r"propose.use: 'refined' is no proposer; did you mean 'refine'\? it may be exh",
        ),
        (
            {"space": {"heads": "each"}},
            r"space.heads: should be all \(each head by itself\), joint .*\(got 'each'\)",
        ),
        ({"space": {"heads": 3}}, r"space.heads: should be all .*\(got 3\)"),
        ({"space": {"heads": [1, 1]}}, "space: heads names 1 twice"),
        (
            {"space": {"subspaces": ["ful"]}},
            r"space.subspaces.0: should be full, \{coordinates: .*, mean_difference, .*\(got 'ful'\)",
        ),
        ({"space": {"subspaces": "full"}}, r"space.subspaces: should be a list such as \[full,"),
        (
            {"space": {"subspaces": [{"cordinates": [1]}]}},
            r"space.subspaces.0.cordinates: unknown key; did you mean 'coordinates'\?",
        ),
        (
            {"space": {"subspaces": [{"coordinates": []}]}},
            r"space.subspaces.0.coordinates: .*at least 1 item",
        ),
        (
            {"space": {"subspaces": [{"coordinates": [3, 3]}]}},
            "space.subspaces.0.coordinates: names 3 twice",
        ),
        (
            {"space": {"subspaces": [{"coordinates": {"from": 3, "to": 1}}]}},
            "space.subspaces.0.coordinates: from 3 to 1 holds no coordinate",
        ),
        (
            {
                "space": {
                    "subspaces": [{"coordinates": [0, 1]}, {"coordinates": {"from": 0, "to": 1}}]
                }
            },
            "space: subspaces names the same one twice",
        ),
        (
            {"space": {"subspaces": [{"das": [0]}]}},
            r"space.subspaces.0.das.0: .*greater than or equal to 1 \(got 0\)",
        ),
        (
            {"space": {"subspaces": [{"das": [1], "pca": [1]}]}},
            "space.subspaces.0: names das, pca; give one kind of subspace",
        ),
        (
            {"space": {"subspaces": [{"dass": [1]}]}},
            r"space.subspaces.0.dass: unknown key; did you mean 'das'\? allowed: coordinates, das",
        ),
        (
            {"space": {"subspaces": [{"mask": {"over": "pca"}}]}},
            "space.subspaces.0.mask: size says how many principal",
        ),
        (
            {"fit": {"rungs": [200, 100]}},
            r"fit: rungs \[200, 100\] must rise, and lie below steps \(400\)",
        ),
        ({"fit": {"seeds": [1, 1]}}, r"fit: seeds \[1, 1\] hold one twice"),
        (
            {"answer": {"compare": "tokens"}},
            r"answer.compare: .*first_token.*sequence.*choices.*\(got 'tokens'\)",
        ),
        (
            {"answer": {"aliases": {" a": [" b"]}, "compare": "choices"}},
            "answer: aliases are for first_token and sequence",
        ),
        (
            {"answer": {"aliases": {" a": [" b"], " b": [" c"]}}},
            "answer: aliases: ' b' is an alias of ' a' and has a list of its own",
        ),
        (
            {"answer": {"aliases": {" a": [" b"], " c": [" b"]}}},
            "answer: aliases: ' b' is an alias of ' a' and of ' c'",
        ),
        ({"answer": {"aliases": {" a": [""]}}}, "answer: aliases: an answer or alias is empty"),
        (
            {"model": {"path": "a.b:net", "prompt": {"chat_template": True}}},
            "model: prompt is for a language model",
        ),
        (
            {"model": {"path": "owner/name", "prompt": {"special_tokens": "no way"}}},
            "model.prompt.special_tokens",
        ),
        ({"fit": {"validation": 1.0}}, "fit.validation: .*less than 1"),
        ({"fit": {"stesp": 10}}, r"fit.stesp: unknown key; did you mean 'steps'\?"),
        (
            {"controls": ["random"]},
            r"controls.0: should be random_subspace, random_model, .*\(got 'random'\)",
        ),
        (
            {"space": {"units": [{"layer": 1}]}},
            r"space.units.0: should be a list of units .* such as \[\{layer: 9",
        ),
        ({"space": {"units": [[]]}}, r"space.units.0: should be a list of units .*\(got \[\]\)"),
        ({"space": {"units": [["last"]]}}, r"space.units.0.0: should be a unit, such as"),
        ({"space": {"units": [[{"layer": 1}]]}}, "space.units.0.0.position: missing"),
        (
            {"space": {"units": [[{"position": "a"}]]}},
            "space.units.0.0: layer is missing; a unit of residual needs it",
        ),
        (
            {"space": {"units": [[{"layer": 1, "postion": "a", "position": "a"}]]}},
            r"space.units.0.0.postion: unknown key; did you mean 'position'\? allowed: layer, "
            r"component, head, position",
        ),
        (
            {"space": {"units": [[{"layer": 1, "position": "a", "source_site": {"layr": 2}}]]}},
            r"space.units.0.0.source_site.layr: unknown key; did you mean 'layer'\?",
        ),
        (
            {"space": {"units": [[{"layer": 1, "position": "a", "component": "heat"}]]}},
            r"space.units.0.0.component: 'heat' is no component; did you mean 'head'\?",
        ),
        (
            {
                "space": {
                    "units": [
                        [
                            {"layer": 1, "position": "a"},
                            {"layer": 1, "position": "a", "source": "s"},
                        ]
                    ]
                }
            },
            "space.units: set 0 interchanges residual of layer 1 at a twice",
        ),
        (
            {
                "space": {
                    "units": [
                        [
                            {"layer": 1, "position": "a", "component": "head", "head": h}
                            for h in (None, 3)
                        ]
                    ]
                }
            },
            "space.units: set 0 interchanges head of layer 1 at a twice",
        ),
        (
            {
                "space": {
                    "units": [
                        [{"layer": n, "position": "a"} for n in order] for order in ((1, 2), (2, 1))
                    ]
                }
            },
            "space.units: sets 0 and 1 are the same; give each once",
        ),
        ({"resources": {"memory": 0}}, r"resources.memory: .*greater than 0 \(got 0\)"),
        ({"test": {"threshold": 1.0}}, r"test.threshold: .*less than 1 \(got 1.0\)"),
        ({"test": {"false_accept": 0}}, r"test.false_accept: .*greater than 0"),
        (
            {"test": {"threshold": 0.9, "indifference": 0.1}},
            "test: threshold 0.9 and indifference 0.1: the band",
        ),
        (
            {"test": {"use": "fixed"}},
            "test: use: fixed measures a fixed number of pairs for every hypothesis; give it",
        ),
        (
            {"test": {"pairs": 12}},
            "test: pairs is for use: fixed; the sequential test has max_pairs",
        ),
        ({"pairs": {"kinds": "keep"}}, r"pairs.kinds: .*\(got 'keep'\)"),
        ({"test": {"threshold": "high"}}, r"test.threshold: .*\(got 'high'\)"),
        ({"pairs": {"test": 0}}, "pairs.test: .*greater than or equal to 1"),
        ({"problem": {}}, 'problem: give one of "use"'),
        ({"problem": {"use": "a", "pairs": "b"}}, 'problem: give one of "use"'),
        ({"problem": {"pairs": "b", "options": {"x": 1}}}, 'problem: "options" are for a problem'),
        ({"model": {}}, "model.path: missing"),
        ({"model": {"path": "./nowhere"}}, "model.path: there is no .*nowhere; give a folder"),
        ({"model": {"path": "owner/m", "dtype": "int8"}}, "model.dtype: .*got 'int8'"),
        (
            {"model": {"path": "absent.py:net"}},
            "model.path: there is no file .*absent.py; give my_file.py:factory",
        ),
        (
            {"model": {"path": "one:two:three"}},
            "model.path: 'one:two:three' names no function; give my_file.py:factory",
        ),
        (
            {"model": {"path": "owner/name", "trust_remote_code": True}},
            "model.trust_remote_code: true would run whatever owner/name holds on the day it is "
            "loaded; pin it",
        ),
        (
            {"model": {"path": "owner/name", "trust_remote_code": True, "revision": "main"}},
            "model.trust_remote_code: true would run whatever owner/name at main holds on the day "
            "it is loaded; pin it",
        ),
        (
            {"model": {"path": "a.b:net", "trust_remote_code": True}},
            "model: trust_remote_code is for a language model;",
        ),
        (
            {"model": {"path": "a.b:net", "device_map": "auto"}},
            "model: device_map is for a language model; a.b:net is",
        ),
        ({"name": "a b"}, "name: .*got 'a b'"),
        (
            {"resources": {"replicas": 0}},
            r"resources.replicas: .*greater than or equal to 1 \(got 0\)",
        ),
        (
            {"resources": {"replicas": 2, "max_replicas": 4}},
            "resources: max_replicas is for replicas: auto; replicas says 2",
        ),
        (
            {"resources": {"gpus": 1.5}},
            "resources: gpus: 1.5 cannot be given; it may be a part of one, or a whole number",
        ),
        ({"resources": {"custom": {"spot": 2.5}}}, "resources: spot: 2.5 cannot be given"),
        (
            {"resources": {"custom": {"GPU": 1}}},
            "resources: custom: GPU is not a custom resource; resources.gpus asks for it",
        ),
        (
            {"resources": {"labels": {"accelerator": "H 100"}}},
            "resources.labels.accelerator: .*got 'H 100'",
        ),
        ({"resources": {"deadline": 0}}, "resources.deadline: .*greater than 0"),
        (
            {"resources": {"replicas": True}},
            r"resources.replicas: should be auto, or a whole number from 1 \(got True\)",
        ),
        (
            {"resources": {"labels": {"a": "in(x"}}},
            r"resources.labels.a: should be one value, or in\(one, another\), with",
        ),
        (
            {"resources": {"labels": {"a b": "x"}}},
            "is no name of a label; it should be as in ray.io/accelerator-type",
        ),
        (
            {"model": {"path": "o/m", "prompt": {"special_tokens": 2}}},
            "prompt.special_tokens: should be auto, true or false",
        ),
        ({"pairs": {"test": True}}, r"pairs.test: should be a number \(got True\)"),
        ({"fit": {"learning_rate": True}}, r"fit.learning_rate: should be a number \(got True\)"),
        ({"controls": ["placebo", "placebo"]}, "controls: names 'placebo' twice; name each once"),
        ({"answer": {"scores": ["kl", "kl"]}}, "answer.scores: names 'kl' twice; name each once"),
        (
            {"test": {"keep_threshold": 0.05, "indifference": 0.1}},
            "test: keep_threshold 0.05 and indifference 0.1: the band around the threshold must "
            "lie between 0 and 1",
        ),
    ],
)
def test_a_mistake_gets_one_line_that_says_where_and_what(
    tmp_path: Path, changes: dict[str, object], says: str
) -> None:
    with pytest.raises(JobError, match=says) as e:
        _load(tmp_path, changes)
    assert "\n" not in str(e.value)


def test_a_text_that_is_a_number_is_that_number_in_every_key_as_the_reference_says(
    tmp_path: Path,
) -> None:
    def asked(layer: object, test: object, threshold: object, rate: object) -> dict[str, object]:
        units = [[{"layer": layer, "position": "a", "source_site": {"layer": layer}}]]
        return {
            "space": {"layers": [layer], "components": ["residual"], "units": units},
            "pairs": {"test": test},
            "test": {"threshold": threshold},
            "fit": {"learning_rate": rate},
        }

    as_text, as_numbers = asked("1", "48", "0.8", "1e-3"), asked(1, 48, 0.8, 0.001)
    assert _load(tmp_path, as_text) == _load(tmp_path, as_numbers)
    page = Path(__file__).parents[2] / "docs" / "reference" / "job-file.md"
    assert "A text that is a number is read as that number" in page.read_text()


@pytest.mark.parametrize(
    "name", ["", "..", "a/b", "../b", "/b", "-b", ".b", "a b", "a\n", "a" * 81]
)
def test_a_name_that_could_be_a_path_or_a_flag_is_refused(tmp_path: Path, name: str) -> None:
    """Folders of runs are called after it."""
    with pytest.raises(JobError, match="name: "):
        _load(tmp_path, {"name": name})


def test_a_name_of_letters_digits_dots_and_dashes_is_one(tmp_path: Path) -> None:
    for name in ("a", "0", "a.b-c_d", "A" * 80):
        assert _load(tmp_path, {"name": name}).name == name


def test_a_function_that_makes_the_network_is_known_by_its_form(tmp_path: Path) -> None:
    (tmp_path / "mine.py").touch()
    for path, is_factory, file in [
        ("mine.py:net", True, "mine.py"),
        ("package.nets:Net", True, None),
        ("owner/model", False, None),
        ("owner/a:b", False, None),
    ]:
        keys = ModelKeys(path=path)
        assert (keys.is_factory, keys.factory_file) == (is_factory, file)
    job = _load(tmp_path, {"model": {"path": "mine.py:net"}, "answer": {"compare": "class"}})
    assert job.model.path == f"{tmp_path.resolve()}/mine.py:net"
    assert Job.parse(yaml.safe_load(job.to_yaml())) == job
    assert _load(tmp_path, {"model": {"path": "package.nets:Net"}}).model.path == "package.nets:Net"


@pytest.mark.parametrize("name", [name for name in featurizers() if name != "identity"])
def test_a_unit_of_a_featurizer_is_refused_not_ignored(tmp_path: Path, name: str) -> None:
    for subspace in (name, {name: [1]}, {name: {}}):
        units = [[{"layer": 0, "position": "last", "subspace": subspace}]]
        where = "x.yaml: space.units.0.0.subspace: not yet supported by this version"
        with pytest.raises(JobError, match=where):
            _load(tmp_path, {"space": {"units": units}})


def test_the_whole_example_of_the_contract_has_known_keys_only() -> None:
    contract = ROOT.parent / "shared" / "interfaces.md"
    if not contract.exists():
        pytest.skip("the contract (../shared/interfaces.md) is not on this machine")
    example = yaml.safe_load(contract.read_text().split("```yaml")[1].split("```")[0])
    known = keys_at([], Job)
    for room, value in example.items():
        assert room in known, room
        for key in value if isinstance(value, dict) else ():
            assert key in keys_at([room], Job), f"{room}.{key}"


def test_keys_given_twice_and_broken_yaml_are_said_with_their_line(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"line 2, column 1: key 'name' is given twice"):
        Job.load(_file(tmp_path, "name: a\nname: b\n"))
    with pytest.raises(JobError, match=r"x.yaml: line 2"):
        Job.load(_file(tmp_path, "name: a\n  model: [\n"))
    with pytest.raises(JobError, match="holds nothing; a job file is a mapping"):
        Job.load(_file(tmp_path, ""))
    with pytest.raises(JobError, match="cannot be read"):
        Job.load(tmp_path / "absent.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(JobError, match="no text in UTF-8"):
        Job.load(tmp_path / "binary.yaml")


@pytest.mark.parametrize("number", ["9" * 5000, "0x" + "f" * 5000, "59:" * 5000 + "59"])
def test_a_number_of_thousands_of_digits_is_refused_however_it_is_written(
    tmp_path: Path, number: str
) -> None:
    """Python writes none, so that each later sentence with it would be a traceback."""
    (path := tmp_path / "job.yaml").write_text(f"pairs: {{seed: {number}}}\n")
    with pytest.raises(JobError, match=r"holds a value that cannot be read .* put it in quotes$"):
        Job.load(path)


def test_set_changes_a_key_and_is_typed_as_yaml(tmp_path: Path) -> None:
    job = _load(
        tmp_path,
        {},
        ("test.threshold=0.9", "space.layers=[0, 2]", "name=y", "pairs.seed=7", "test.miss=1e-3"),
    )
    assert (job.test.threshold, job.space.layers, job.name, job.pairs.seed, job.test.miss) == (
        0.9,
        (0, 2),
        "y",
        7,
        0.001,
    )
    with pytest.raises(JobError, match="--set threshold: is not of the form"):
        _load(tmp_path, {}, ("threshold",))
    with pytest.raises(JobError, match="unknown key; did you mean 'threshold'"):
        _load(tmp_path, {}, ("test.treshold=0.9",))
    with pytest.raises(JobError, match="name is no mapping"):
        _load(tmp_path, {}, ("name.x=1",))


def test_paths_are_taken_from_the_folder_of_the_job(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    job = _load(tmp_path, {"model": {"path": "m"}, "problem": {"pairs": "p.jsonl"}})
    assert job.model.path == str(tmp_path / "m")
    assert job.problem.pairs == str(tmp_path / "p.jsonl")
    assert (
        _load(tmp_path, {"problem": {"use": "mine.py:make"}}).problem.use
        == f"{tmp_path / 'mine.py'}:make"
    )
    assert (
        _load(tmp_path, {"propose": {"use": "mine.py:Proposer"}}).propose.use
        == f"{tmp_path / 'mine.py'}:Proposer"
    )
    assert _load(tmp_path, {}).model.path == "owner/model"


def test_a_resolved_job_reads_back_as_itself(tmp_path: Path) -> None:
    job = _load(
        tmp_path, {"space": {"layers": {"from": 0, "to": 4, "step": 2}, "variables": ["a"]}}
    )
    assert Job.load(_file(tmp_path, job.to_yaml())) == job


def test_the_hash_covers_what_changes_an_answer_and_nothing_else(tmp_path: Path) -> None:
    job = _load(tmp_path, {})
    whole = job.hash({}, "p")
    elsewhere = {
        "rows": 8,
        "max_replicas": 2,
        "memory": 1.5,
        "gpus": 0.5,
        "labels": {"ray.io/accelerator-type": "in(H100, A100)"},
        "custom": {"spot": 1},
        "deadline": 60,
        "wait": 1800,
    }
    assert _load(tmp_path, {"name": "other", "resources": elsewhere}).hash({}, "p") == whole
    assert _load(tmp_path, {"test": {"threshold": 0.7}}).hash({}, "p") != whole
    assert _load(tmp_path, {"pairs": {"seed": 1}}).hash({}, "p") != whole
    assert _load(tmp_path, {"space": {"heads": "joint"}}).hash({}, "p") != whole
    assert _load(tmp_path, {"propose": {"use": "refine"}}).hash({}, "p") != whole
    assert job.hash({}, "q") != whole
    mine = _load(tmp_path, {"propose": {"use": "mine.py:Proposer"}})
    assert mine.hash({"propose.use": "d"}, "p") != mine.hash({"propose.use": "e"}, "p")
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    a, b = (_load(tmp_path, {"model": {"path": folder}}) for folder in "ab")
    assert (
        a.hash({"model.path": "d"}, "p")
        == b.hash({"model.path": "d"}, "p")
        != a.hash({"model.path": "e"}, "p")
    )


SUBSPACES = st.just("full") | st.fixed_dictionaries(
    {
        "coordinates": st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True)
        | st.builds(
            lambda a, b: {"from": min(a, b), "to": max(a, b)}, st.integers(0, 9), st.integers(0, 9)
        )
    }
)
SITE_KEYS = {
    "component": st.sampled_from(
        ["residual", "head", "embedding", "model.layers.{layer}.mlp.input"]
    ),
    "head": st.none() | st.integers(0, 8),
    "layer": st.integers(0, 29),
    "position": st.sampled_from(
        ["country", "last", "token_3", {"country": {"take": "last"}}, {"x": {"tokens": [12, 13]}}]
    ),
}
UNITS = st.fixed_dictionaries(
    {"layer": SITE_KEYS["layer"], "position": SITE_KEYS["position"]},
    optional={
        "component": SITE_KEYS["component"],
        "head": SITE_KEYS["head"],
        "subspace": SUBSPACES,
        "source": st.just("source"),
        "source_site": st.fixed_dictionaries({}, optional=SITE_KEYS),
    },
)
SPACES = st.fixed_dictionaries(
    {"units": st.lists(st.lists(UNITS, min_size=1, max_size=2), max_size=3)},
    optional={
        "components": st.lists(SITE_KEYS["component"], unique=True, max_size=3),
        "heads": st.sampled_from(["all", "joint", [0, 4]]),
        "layers": st.sampled_from(["all", [0, 3], {"from": 1, "to": 5}]),
        "positions": st.just("all") | st.lists(SITE_KEYS["position"], min_size=1, max_size=3),
        "subspaces": st.lists(SUBSPACES, min_size=1, max_size=2),
    },
)


@given(SPACES)
def test_a_space_that_is_written_down_reads_back_as_itself(space: dict[str, object]) -> None:
    try:
        job = Job.parse({**SMALL, "space": space})
    except JobError:
        return
    again = Job.parse(yaml.safe_load(job.to_yaml()))
    assert again == job
    assert again.digest() == job.digest()


@pytest.mark.parametrize(
    ("written", "components"),
    [
        ({}, ()),
        ({"variables": ["v"]}, ()),
        ({"layers": "all"}, ("residual",)),
        ({"positions": ["a"]}, ("residual",)),
        ({"heads": "all"}, ("residual",)),
        ({"subspaces": ["full"]}, ("residual",)),
        ({"components": ["head"]}, ("head",)),
        ({"components": []}, ()),
    ],
)
def test_units_alone_have_no_grid_beside_them_unless_a_key_of_the_grid_is_written(
    written: dict[str, object], components: tuple[str, ...]
) -> None:
    units = [[{"layer": 1, "position": "last"}]]
    job = Job.parse({**SMALL, "space": {"units": units, **written}})
    assert job.space.components == components
    assert Job.parse(
        {**SMALL, "space": {"units": [], **written}} if components else SMALL
    ).space.components


def test_what_is_the_same_has_one_form() -> None:
    def units(*given: dict[str, object]) -> tuple[Unit, ...]:
        (keys,) = Job.parse({**SMALL, "space": {"units": [list(given)]}}).space.units
        return intervention_of(keys).units

    one, two = {"layer": 2, "position": "a"}, {"layer": 1, "position": "last"}
    assert units(one, two) == units(two, one)
    assert units(one | {"source_site": {"layer": 2}}) == units(one)
    assert units(one | {"subspace": {"coordinates": [2, 0, 1]}}) == units(
        one | {"subspace": {"coordinates": {"from": 0, "to": 2}}}
    )
    lender = {"component": "embedding"}
    assert units(one | {"source_site": lender})[0].source_site == Site(0, "embedding", "a")
    assert units({"component": "embedding", "position": "a"})[0].site == Site(0, "embedding", "a")
    head = {"layer": 3, "component": "query", "head": 7, "position": "last"}
    assert units(head | {"source_site": {"layer": 5}}) == (
        Unit(Site(3, "query", "last", 7), source_site=Site(5, "query", "last", 7)),
    )


def test_subspaces_of_later_versions_are_refused_in_units_too(tmp_path: Path) -> None:
    unit = {"layer": 1, "position": "a", "subspace": {"das": 4}}
    with pytest.raises(JobError, match=r"space.units.0.0.subspace: not yet supported"):
        _load(tmp_path, {"space": {"units": [[unit]]}})


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda c: st.lists(c, max_size=3) | st.dictionaries(st.text(max_size=8), c, max_size=3),
        max_leaves=8,
    )
)
def test_no_mapping_is_answered_with_anything_but_a_job_or_one_line(value: object) -> None:
    unit = {"layer": 0, "position": "a"}
    rooms: list[dict[str, object]] = [
        {room: value}
        for room in (
            "model",
            "problem",
            "pairs",
            "answer",
            "space",
            "test",
            "propose",
            "resources",
            "name",
            "else",
        )
    ]
    rooms += [{"space": {key: value}} for key in keys_at(["space"], Job)]
    rooms += [
        {"space": {"units": [[{**unit, key: value}]]}}
        for key in keys_at(["space", "units", "0", "0"], Job)
    ]
    for room in rooms:
        try:
            Job.parse({**SMALL, **room})
        except JobError as e:
            lines = str(e).splitlines()
            assert len(lines) == 1, lines


def test_the_reference_says_which_answers_resources_leave_alone_and_which_digits_not() -> None:
    page = " ".join((ROOT / "docs" / "reference" / "job-file.md").read_text().split())
    assert "Changes no answer" not in page
    for said in ("change no answer, in half precision neither", "whose size `rows` and `tokens`"):
        assert said in page
