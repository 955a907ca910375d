"""The job file: what is accepted, what is refused, and how it is said."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from raysearch.errors import JobError, NotYetError
from raysearch.job import NOT_YET_KEYS, NOT_YET_VALUES, Job, _keys_at

SMALL = {"name": "x", "model": {"path": "owner/model"}, "problem": {"use": "raysearch.problems.add_three"}}


def _file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    return path


def _load(tmp_path: Path, changes: dict[str, object], sets: tuple[str, ...] = ()) -> Job:
    raw = {**SMALL, **changes}
    return Job.load(_file(tmp_path, yaml.safe_dump(raw)), sets)


def test_defaults_are_those_of_the_contract(tmp_path: Path) -> None:
    job = _load(tmp_path, {})
    assert (job.model.dtype, job.model.revision) == ("float32", None)
    assert (job.pairs.test, job.pairs.fit, job.pairs.holdout, job.pairs.seed, job.pairs.solved_only) == (
        512,
        512,
        128,
        0,
        True,
    )
    assert (job.test.threshold, job.test.false_accept, job.test.miss, job.test.max_pairs) == (0.8, 0.05, 0.05, 512)
    assert (job.resources.replicas, job.resources.gpus, job.resources.cpus, job.resources.rows) == (
        "auto",
        "auto",
        1,
        64,
    )
    assert job.space.layers == "all"
    assert job.test.claim == "auto"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"spce": {}}, r"x.yaml: spce: unknown key; did you mean 'space'\? allowed: name, model"),
        ({"space": {"layer": [1]}}, r"x.yaml: space.layer: unknown key; did you mean 'layers'\? allowed: variables"),
        (
            {"space": {"layers": {"from": 1, "to": 3, "stop": 2}}},
            r"space.layers.stop: unknown key; did you mean 'step'",
        ),
        ({"space": {"layers": {"from": 4, "to": 3}}}, "space.layers: from 4 to 3 holds no layer"),
        ({"space": {"layers": [-1]}}, r"space.layers.0: .*greater than or equal to 0 \(got -1\)"),
        ({"space": {"layers": "every"}}, r"space.layers: should be all, a list such as .*got 'every'"),
        ({"space": {"positions": ["a", "a"]}}, "space: positions names 'a' twice"),
        ({"test": {"threshold": 1.0}}, r"test.threshold: .*less than 1 \(got 1.0\)"),
        ({"test": {"false_accept": 0}}, r"test.false_accept: .*greater than 0"),
        ({"test": {"threshold": "high"}}, r"test.threshold: .*\(got 'high'\)"),
        ({"pairs": {"test": 0}}, "pairs.test: .*greater than or equal to 1"),
        ({"problem": {}}, 'problem: give one of "use"'),
        ({"problem": {"use": "a", "pairs": "b"}}, 'problem: give one of "use"'),
        ({"problem": {"pairs": "b", "options": {"x": 1}}}, 'problem: "options" are for a problem'),
        ({"model": {}}, "model.path: missing"),
        ({"model": {"path": "./nowhere"}}, "model.path: there is no .*nowhere; give a folder"),
        ({"model": {"path": "owner/m", "dtype": "int8"}}, "model.dtype: .*got 'int8'"),
        ({"name": "a b"}, "name: .*got 'a b'"),
        ({"resources": {"replicas": 0}}, "resources.replicas: .*got 0"),
    ],
)
def test_a_mistake_gets_one_line_that_says_where_and_what(
    tmp_path: Path, changes: dict[str, object], says: str
) -> None:
    with pytest.raises(JobError, match=says) as e:
        _load(tmp_path, changes)
    assert "\n" not in str(e.value)
    assert not isinstance(e.value, NotYetError)


@pytest.mark.parametrize("key", NOT_YET_KEYS)
def test_keys_of_later_versions_are_refused_not_ignored(tmp_path: Path, key: str) -> None:
    room, _, name = key.partition(".")
    value: object = {name: 1} if name else {"x": 1}
    if room in SMALL:
        value = {**SMALL[room], name: 1}  # type: ignore[dict-item]
    with pytest.raises(NotYetError, match=rf"x.yaml: {key}: not yet supported"):
        _load(tmp_path, {room: value})


@pytest.mark.parametrize(
    ("path", "value"),
    [(path, value) for path, values in NOT_YET_VALUES.items() for value in values]
    + [
        ("space.positions", [{"x": {"take": "last"}}]),
        ("space.subspaces", ["full", {"das": [1, 4]}]),
        ("space.components", ["residual", "mlp_output"]),
        ("space.components", ["model.layers.3.mlp"]),
        ("propose.use", "my_file.py:Proposer"),
    ],
)
def test_values_of_later_versions_are_refused_not_ignored(tmp_path: Path, path: str, value: object) -> None:
    room, _, name = path.partition(".")
    listed = name in ("components", "subspaces") and isinstance(value, str)
    with pytest.raises(NotYetError, match=f"{path}: not yet supported"):
        _load(tmp_path, {room: {name: [value] if listed else value}})


def test_the_whole_example_of_the_contract_has_known_keys_only() -> None:
    contract = Path(__file__).parents[2] / "shared" / "interfaces.md"
    if not contract.exists():
        pytest.skip("the contract (../shared/interfaces.md) is not on this machine")
    example = yaml.safe_load(contract.read_text().split("```yaml")[1].split("```")[0])
    known = {*_keys_at([]), *NOT_YET_KEYS}
    for room, value in example.items():
        assert room in known, room
        for key in value if isinstance(value, dict) and room not in NOT_YET_KEYS else ():
            assert key in _keys_at([room]), f"{room}.{key}"


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


def test_set_changes_a_key_and_is_typed_as_yaml(tmp_path: Path) -> None:
    job = _load(tmp_path, {}, ("test.threshold=0.9", "space.layers=[0, 2]", "name=y", "pairs.seed=7", "test.miss=1e-3"))
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
    assert _load(tmp_path, {"problem": {"use": "mine.py:make"}}).problem.use == f"{tmp_path / 'mine.py'}:make"
    assert _load(tmp_path, {}).model.path == "owner/model"


def test_a_resolved_job_reads_back_as_itself(tmp_path: Path) -> None:
    job = _load(tmp_path, {"space": {"layers": {"from": 0, "to": 4, "step": 2}, "variables": ["a"]}})
    assert Job.load(_file(tmp_path, job.to_yaml())) == job


def test_the_hash_covers_what_changes_an_answer_and_nothing_else(tmp_path: Path) -> None:
    job = _load(tmp_path, {})
    whole = job.hash({}, "p")
    assert _load(tmp_path, {"name": "other", "resources": {"rows": 8, "replicas": 2}}).hash({}, "p") == whole
    assert _load(tmp_path, {"test": {"threshold": 0.7}}).hash({}, "p") != whole
    assert _load(tmp_path, {"pairs": {"seed": 1}}).hash({}, "p") != whole
    assert job.hash({}, "q") != whole
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    a, b = (_load(tmp_path, {"model": {"path": folder}}) for folder in "ab")
    assert a.hash({"model.path": "d"}, "p") == b.hash({"model.path": "d"}, "p") != a.hash({"model.path": "e"}, "p")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda c: st.lists(c, max_size=3) | st.dictionaries(st.text(max_size=8), c, max_size=3),
        max_leaves=8,
    )
)
def test_no_mapping_is_answered_with_anything_but_a_job_or_one_line(value: object) -> None:
    for room in ("model", "problem", "pairs", "answer", "space", "test", "propose", "resources", "name", "else"):
        try:
            Job.parse({**SMALL, room: value})
        except JobError as e:
            lines = str(e).splitlines()
            assert len(lines) == 1, lines
