"""Saved interventions: kept as a folder and read again, or refused in one line."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open

import raysearch
from raysearch import Finding, ModelOrigin, SavedIntervention, load_intervention, save_intervention
from raysearch.core.hypothesis import Intervention, Site, Subspace, Unit
from raysearch.errors import StoreError

MODEL = ModelOrigin("HuggingFaceTB/SmolLM2-135M-Instruct", "7e27bd9f", "d" * 64, "float32")
FINDING = Finding(
    run="capitals-20261123T082300Z-9b725df6", hypothesis="a" * 16, verdict="accept", n=64, matches=62, iia=62 / 64,
    low=0.89, high=0.991, holdout_n=128, holdout_iia=0.96875, claim="sampler", threshold=0.8, false_accept=0.05,
)  # fmt: skip
FILES = {"intervention.safetensors", "intervention.json", "README.md"}
DTYPES = [
    torch.float32,
    torch.float64,
    torch.bfloat16,
    torch.float16,
    torch.int64,
    torch.int8,
    torch.bool,
    torch.complex64,
]

names = st.text(min_size=1, max_size=8)
small = st.integers(0, 40)
sites = st.builds(Site, small, names, names, st.none() | small)
subspaces = st.builds(
    Subspace, names, st.none() | small, st.none() | st.lists(small, max_size=4).map(tuple)
)
units = st.builds(Unit, sites, subspaces, st.none() | sites, st.none() | names)
interventions = st.builds(
    Intervention,
    st.lists(units, min_size=1, max_size=3).map(tuple),
    st.sampled_from(["interchange", "zero"]),
    st.none() | names,
)
finite = st.none() | st.floats(allow_nan=False, allow_infinity=False)
findings = st.builds(
    Finding,
    run=st.none() | names,
    verdict=st.none() | names,
    n=st.none() | small,
    iia=finite,
    low=finite,
    high=finite,
)


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    """Any bits in any shape, not-a-number and minus zero among them; sometimes a transposed view,
    or one that needs gradients."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 4), max_size=3))
    count = torch.Size(shape).numel()
    if dtype is torch.bool:
        return torch.tensor(
            draw(st.lists(st.booleans(), min_size=count, max_size=count)), dtype=dtype
        ).reshape(shape)
    size = count * dtype.itemsize
    data = draw(st.binary(min_size=size, max_size=size))
    flat = (
        torch.frombuffer(bytearray(data), dtype=dtype).clone()
        if size
        else torch.empty(0, dtype=dtype)
    )
    tensor = flat.reshape(shape)
    if len(shape) > 1 and draw(st.booleans()):
        tensor = tensor.transpose(0, -1)
    return torch.nn.Parameter(tensor) if dtype.is_floating_point and draw(st.booleans()) else tensor


def _bits(tensor: torch.Tensor) -> tuple[torch.dtype, torch.Size, bytes]:
    return (
        tensor.dtype,
        tensor.shape,
        bytes(tensor.detach().contiguous().flatten().view(torch.uint8).tolist()),
    )


def _intervention() -> Intervention:
    return Intervention(
        (
            Unit(Site(12, "residual", "country")),
            Unit(Site(3, "head", "last", 2), source_site=Site(4, "head", "last", 1)),
        )
    )


@settings(max_examples=30)
@given(
    interventions, st.dictionaries(names.filter(lambda n: n != "__metadata__"), tensors(), max_size=3), st.none() | names,
    st.none() | st.builds(ModelOrigin, names, st.none() | names, st.none() | names, st.none() | names), st.none() | findings,
)  # fmt: skip
def test_what_is_loaded_is_what_was_saved_bit_by_bit(
    tmp_path_factory: pytest.TempPathFactory,
    intervention: Intervention,
    kept: dict[str, torch.Tensor],
    variable: str | None,
    model: ModelOrigin | None,
    finding: Finding | None,
) -> None:
    folder = tmp_path_factory.mktemp("saved")
    written = save_intervention(
        intervention, folder, tensors=kept, variable=variable, model=model, finding=finding
    )
    read = load_intervention(folder)
    for saved in (written, read):
        assert saved.intervention == intervention
        assert saved.intervention.id == intervention.id
        assert {n: _bits(t) for n, t in saved.tensors.items()} == {
            n: _bits(t) for n, t in kept.items()
        }
        assert (saved.variable, saved.model, saved.finding) == (variable, model, finding)
    assert {p.name for p in folder.iterdir()} == FILES
    assert isinstance(yaml.safe_load((folder / "README.md").read_text().split("---\n")[1]), dict)
    shutil.rmtree(folder)


def test_saving_what_was_loaded_writes_the_same_bytes(tmp_path: Path) -> None:
    save_intervention(
        _intervention(),
        tmp_path / "a",
        tensors={"unit0.R": torch.randn(8, 2)},
        model=MODEL,
        finding=FINDING,
    )
    save_intervention(load_intervention(tmp_path / "a"), tmp_path / "b")
    for name in FILES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_what_is_given_besides_takes_the_place_of_what_is_held(tmp_path: Path) -> None:
    held = SavedIntervention(_intervention(), variable="country", model=MODEL)
    saved = save_intervention(held, tmp_path, variable="relation", tensors={"R": torch.ones(2)})
    assert (saved.variable, saved.model, list(saved.tensors)) == ("relation", MODEL, ["R"])


def test_a_static_intervention_has_a_file_without_tensors(tmp_path: Path) -> None:
    save_intervention(_intervention(), tmp_path)
    with safe_open(tmp_path / "intervention.safetensors", "pt") as file:
        assert list(file.keys()) == []
        assert file.metadata() == {"format": "pt"}
    assert dict(load_intervention(tmp_path).tensors) == {}


def test_a_saved_intervention_travels_between_processes(tmp_path: Path) -> None:
    save_intervention(
        _intervention(), tmp_path, tensors={"R": torch.randn(8, 2)}, model=MODEL, finding=FINDING
    )
    read = load_intervention(tmp_path)
    there = pickle.loads(pickle.dumps(read))
    assert (there.intervention, there.model, there.finding) == (read.intervention, MODEL, FINDING)
    assert torch.equal(there.tensors["R"], read.tensors["R"])


def test_views_of_one_memory_and_lazy_conjugates_are_kept_as_their_values(tmp_path: Path) -> None:
    whole = torch.randn(4, 4)
    lazy = torch.randn(3, dtype=torch.complex64).conj()
    save_intervention(_intervention(), tmp_path, tensors={"a": whole, "b": whole[1:], "c": lazy})
    read = load_intervention(tmp_path).tensors
    assert torch.equal(read["a"], whole)
    assert torch.equal(read["b"], whole[1:])
    assert torch.equal(read["c"], lazy)


def test_the_readme_says_what_it_claims_and_how_to_load_it(tmp_path: Path) -> None:
    save_intervention(
        _intervention(),
        tmp_path,
        variable="country",
        model=MODEL,
        finding=FINDING,
        tensors={"R": torch.ones(5, 2)},
    )
    text = (tmp_path / "README.md").read_text()
    assert yaml.safe_load(text.split("---\n")[1]) == {
        "library_name": "raysearch",
        "tags": ["raysearch", "interpretability", "causal-abstraction"],
        "base_model": "HuggingFaceTB/SmolLM2-135M-Instruct",
    }
    for said in (
        "# country: an intervention on SmolLM2-135M-Instruct",
        "**Verdict: accept.** On 62 of 64 pairs the output was the predicted one (IIA 0.969, 95 % "
        "interval 0.890 to 0.991).",
        "layer 12, residual, position `country`",
        "layer 4, head, head 1, position `last`",
        "raysearch.load_intervention(",
        "`R` (float32 [5, 2])",
        "sufficient under interchange",
        FINDING.run,
    ):
        assert str(said) in text, said


def test_the_readme_loads_no_model_that_a_function_makes(tmp_path: Path) -> None:
    save_intervention(_intervention(), tmp_path, model=ModelOrigin("my_nets.py:gru"))
    text = (tmp_path / "README.md").read_text()
    assert "Model.load" not in text
    assert "model = raysearch.TensorModel(network)" in text


@pytest.mark.parametrize(
    ("kind", "tensors", "said"),
    [
        ("zero", {}, "model.swap(base, source, saved"),
        ("mean", {"constant.0": torch.zeros(1, 4)}, "model.swap(base, source, saved"),
        ("mean", {}, "print(saved.intervention.units"),
        ("resample", {}, "print(saved.intervention.units"),
    ],
)
def test_the_readme_applies_an_ablation_where_it_can_be_and_names_no_source(
    kind: str, tensors: dict[str, torch.Tensor], said: str, tmp_path: Path
) -> None:
    ablation = Intervention((Unit(Site(1, "residual", "last")),), kind)
    save_intervention(ablation, tmp_path, tensors=tensors)
    text = (tmp_path / "README.md").read_text()
    assert said in text
    assert "| no source; an ablation: " in text


def test_the_readme_names_population_level_distinct_pairs_and_what_was_not_shown(
    tmp_path: Path,
) -> None:
    finding = replace(
        FINDING, population="pairs of this sampler that were not trained on", distinct=40, k=540,
        level=0.05 / 540, holdout_low=0.922, holdout_high=0.991,
    )  # fmt: skip
    save_intervention(_intervention(), tmp_path, finding=finding)
    text = (tmp_path / "README.md").read_text()
    for said in (
        "On 62 of 64 pairs (40 different ones) the output",
        "On pairs held out (n = 128), which decided nothing, it was so on a share of 0.969 (95 % "
        "interval 0.922 to 0.991).",
        "The verdict is about pairs of this sampler that were not trained on, and no other pairs.",
        "accepted any hypothesis at or below the threshold was at most 0.05 over K = 540 hypotheses, "
        "of which this one spent 9.3e-05.",
        "it does not say that the variable lives there and nowhere else, or that no other causal "
        "model predicts the same answers, and nothing of pairs beyond these.",
    ):
        assert said in text, said


def test_the_readme_of_a_reject_or_of_no_verdict_claims_nothing(tmp_path: Path) -> None:
    save_intervention(_intervention(), tmp_path, finding=replace(FINDING, verdict="reject"))
    assert "**Verdict: reject.**" in (tmp_path / "README.md").read_text()
    assert "sufficient" not in (tmp_path / "README.md").read_text()
    save_intervention(_intervention(), tmp_path, model=ModelOrigin("/models/mine"))
    assert "claims nothing yet" in (tmp_path / "README.md").read_text()
    assert "base_model" not in (tmp_path / "README.md").read_text()


def test_hostile_names_stay_text_on_one_line_of_the_readme(tmp_path: Path) -> None:
    nasty = "x`|\n---\n# <b>"
    save_intervention(
        Intervention((Unit(Site(1, nasty, nasty)),)),
        tmp_path,
        variable=nasty,
        model=ModelOrigin(nasty),
    )
    lines = (tmp_path / "README.md").read_text().splitlines()
    assert lines.count("---") == 2
    assert [line for line in lines if line.startswith("# ")] == [
        next(line for line in lines if "an intervention on" in line)
    ]


def _edit(**changes: Any) -> Any:
    def damage(folder: Path) -> None:
        card = json.loads((folder / "intervention.json").read_text())
        (folder / "intervention.json").write_text(json.dumps({**card, **changes}))

    return damage


def _without(key: str) -> Any:
    def damage(folder: Path) -> None:
        card = json.loads((folder / "intervention.json").read_text())
        del card[key]
        (folder / "intervention.json").write_text(json.dumps(card))

    return damage


def _cut(name: str) -> Any:
    def damage(folder: Path) -> None:
        (folder / name).write_bytes((folder / name).read_bytes()[:-9])

    return damage


def _deep_unknown_key(folder: Path) -> None:
    card = json.loads((folder / "intervention.json").read_text())
    card["intervention"]["units"][1]["site"]["heads"] = 3
    (folder / "intervention.json").write_text(json.dumps(card))


def _other_layer(folder: Path) -> None:
    text = (folder / "intervention.json").read_text()
    (folder / "intervention.json").write_text(text.replace('"layer": 12', '"layer": 13'))


def _no_safetensors(folder: Path) -> None:
    import hashlib

    (folder / "intervention.safetensors").write_bytes(b"not tensors")
    _edit(tensors_digest=hashlib.sha256(b"not tensors").hexdigest())(folder)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda f: (f / "intervention.json").unlink(), "intervention.json is missing"),
        (
            lambda f: (f / "intervention.safetensors").unlink(),
            "intervention.safetensors cannot be read",
        ),
        (_edit(format_version=2), "format_version is 2, this version reads 1"),
        (_edit(format_version=True), "format_version is True"),
        (_without("format_version"), "format_version is None"),
        (_cut("intervention.json"), "is no JSON"),
        (lambda f: (f / "intervention.json").write_bytes(b"\xff\xfe{"), "is no JSON"),
        (lambda f: (f / "intervention.json").write_text("[]"), "format_version is None"),
        (_cut("intervention.safetensors"), "intervention.safetensors has SHA-256"),
        (
            lambda f: (f / "intervention.safetensors").write_bytes(b""),
            "intervention.safetensors has SHA-256",
        ),
        (_no_safetensors, "is no safetensors file"),
        (_edit(tensors_digest="0" * 64), "its card says 000000000000"),
        (_edit(tensor_digest="0"), "tensor_digest: unknown key; did you mean 'tensors_digest'?"),
        (_deep_unknown_key, "intervention.units[1].site.heads: unknown key; did you mean 'head'?"),
        (_without("intervention"), "intervention: missing"),
        (_edit(variable=3), "variable: should be a text (in quotes where it looks like a number, "),
        (_edit(intervention={"units": 5}), "intervention.units: should be a list (got 5)"),
        (_other_layer, "but its intervention has"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused_in_one_line(
    tmp_path: Path, damage: Any, says: str
) -> None:
    folder = tmp_path / "it"
    save_intervention(_intervention(), folder, tensors={"R": torch.randn(8, 2)})
    damage(folder)
    with pytest.raises(StoreError) as error:
        load_intervention(folder)
    assert says in str(error.value)
    assert str(error.value).startswith(str(folder))
    assert len(str(error.value).splitlines()) == 1


def test_what_is_neither_folder_nor_hub_id_is_refused(tmp_path: Path) -> None:
    for place in (tmp_path / "none", str(tmp_path / "none"), "none", "a/b/c"):
        with pytest.raises(
            StoreError,
            match="there is no such folder; give a folder that save_intervention made, or a hub id",
        ):
            load_intervention(place)
    with pytest.raises(StoreError, match="a folder has no revision 'main'"):
        load_intervention(tmp_path, revision="main")


@pytest.mark.parametrize(
    "tensors",
    [
        {"R": [1.0]},
        {"R": torch.eye(3).to_sparse()},
        {"R": torch.empty(2, device="meta")},
        {"__metadata__": torch.ones(1)},
    ],
)
def test_tensors_that_cannot_be_kept_are_refused_before_anything_is_written(
    tmp_path: Path, tensors: Any
) -> None:
    with pytest.raises(StoreError) as error:
        save_intervention(_intervention(), tmp_path / "it", tensors=tensors)
    assert next(iter(tensors)) in str(error.value)
    assert not (tmp_path / "it").exists()


def test_figures_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="plain, finite values"):
        save_intervention(_intervention(), tmp_path / "it", finding=Finding(low=float("nan")))


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be made"):
        save_intervention(_intervention(), tmp_path / "file")
    (tmp_path / "it" / "intervention.json").mkdir(parents=True)
    with pytest.raises(StoreError, match="cannot be written"):
        save_intervention(_intervention(), tmp_path / "it")


def test_a_save_that_stops_halfway_over_an_older_one_is_never_read_as_a_mixture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_intervention(_intervention(), tmp_path, tensors={"R": torch.zeros(2)})
    put = os.replace

    def stop_at_the_card(source: Any, target: Any, **folders: Any) -> None:
        if Path(target).name == "intervention.json":
            raise OSError(28, "No space left on device")
        put(source, target, **folders)

    monkeypatch.setattr(os, "replace", stop_at_the_card)
    with pytest.raises(StoreError, match="No space left"):
        save_intervention(_intervention(), tmp_path, tensors={"R": torch.ones(2)})
    with pytest.raises(StoreError, match="belongs to another card"):
        load_intervention(tmp_path)


def test_importing_raysearch_imports_nothing_heavy_and_its_names_are_there_when_asked() -> None:
    script = (
        "import sys, raysearch\n"
        "assert set(raysearch.__all__) <= set(dir(raysearch))\n"
        "heavy = {'torch', 'ray', 'transformers', 'safetensors', 'huggingface_hub', 'numpy'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "raysearch.ModelOrigin\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
    everything: dict[str, object] = {}
    exec("from raysearch import *", everything)
    assert everything["load_intervention"] is raysearch.load_intervention
    assert all(getattr(raysearch, name) is not None for name in raysearch.__all__)
    with pytest.raises(AttributeError, match="no attribute 'modle'"):
        _ = getattr(raysearch, "modle")  # noqa: B009  (mypy would say so too)
