"""Submissions of MIB's causal-variable track: written and read again, and read by code that shares
nothing with ours."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from raysearch import SavedIntervention, load_mib, save_mib
from raysearch.core.hypothesis import Intervention, Site, Subspace, Unit
from raysearch.errors import JobError, StoreError
from raysearch.interventions.subspace_tensors import tensors_of, tensors_of_width
from tests.engine.featurizer_worlds import NAMED, made, near, pair

WIDTH = 12
HERE = Site(1, "residual", "country")
EXPRESSIBLE = ("das", "boundless_rank", "mask", "mask of heads", "svd", "mean_difference", "random")
CELL = "4_answer_MCQA_Qwen2ForCausalLM_answer_pointer"


def _saved(name: str, site: Site = HERE, seed: int = 0) -> SavedIntervention:
    featurizer = made(name, WIDTH, seed)
    featurizer.harden()
    return SavedIntervention(
        Intervention((Unit(site, NAMED[name]),), variable="v"), tensors_of(featurizer), variable="v"
    )


def _plain(site: Site = HERE, coordinates: tuple[int, ...] | None = None) -> SavedIntervention:
    unit = Unit(site, Subspace(coordinates=coordinates))
    return SavedIntervention(
        Intervention((unit,)), {} if coordinates is None else tensors_of_width(WIDTH), variable="v"
    )


def _computed(saved: SavedIntervention, base: Tensor, source: Tensor) -> Tensor:
    """By our featurizers; of plain coordinates, by indexing."""
    featurizer = saved.featurizer
    if featurizer is not None:
        with torch.no_grad():
            return featurizer.interchange(base, source)
    coordinates = saved.intervention.units[0].subspace.coordinates
    if coordinates is None:
        return source
    out = base.clone()
    out[:, list(coordinates)] = source[:, list(coordinates)]
    return out


# The benchmark's side: its modules, its way of saving and loading, its interchange. Written here,
# apart from raysearch.


class RotateLayer(nn.Module):
    def __init__(self, width: int, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(nn.init.orthogonal_(torch.empty(width, features)))


class SubspaceFeaturizerModule(nn.Module):
    def __init__(self, rotate: nn.Module) -> None:
        super().__init__()
        self.rotate = rotate

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        weight: Any = self.rotate.weight
        return x @ weight, x - x @ weight @ weight.T


class SubspaceInverseFeaturizerModule(SubspaceFeaturizerModule):
    def back(self, features: Tensor, error: Tensor) -> Tensor:
        weight: Any = self.rotate.weight
        return features @ weight.T + error


def _orthogonal(width: int, features: int) -> nn.Module:
    layer: nn.Module = torch.nn.utils.parametrizations.orthogonal(RotateLayer(width, features))
    return layer


def _their_save(path: Path, module: nn.Module | None, indices: list[int] | None) -> None:
    kind = "Identity" if module is None else "Subspace"
    weight: Any = None if module is None else module.rotate.weight
    info = {
        "featurizer_class": f"{kind}FeaturizerModule", "inverse_featurizer_class": f"{kind}InverseFeaturizerModule",
        "n_features": WIDTH if module is None else weight.shape[1],
        "additional_config": {} if module is None else {"rotation_matrix": weight.detach().clone(), "requires_grad": True},
    }  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    for ending in ("_featurizer", "_inverse_featurizer"):
        state = {} if module is None else module.state_dict()
        torch.save({"model_info": info, "state_dict": state}, f"{path}{ending}")
    Path(f"{path}_indices").write_text(json.dumps(indices))


@torch.no_grad()
def _their_interchange(path: Path, base: Tensor, source: Tensor) -> Tensor:
    """What the benchmark computes of three files; the state is loaded strictly, as its loader does."""
    written, back = (
        torch.load(f"{path}{ending}", weights_only=True)
        for ending in ("_featurizer", "_inverse_featurizer")
    )
    info = written["model_info"]
    assert json.loads(Path(f"{path}_indices").read_text()) is None
    if info["featurizer_class"] == "IdentityFeaturizerModule":
        assert not written["state_dict"]
        return source
    matrix = info["additional_config"]["rotation_matrix"]
    assert info["n_features"] == matrix.shape[1]
    module = SubspaceFeaturizerModule(_orthogonal(*matrix.shape))
    inverse = SubspaceInverseFeaturizerModule(_orthogonal(*matrix.shape))
    module.load_state_dict(written["state_dict"])
    inverse.load_state_dict(back["state_dict"])
    weight: Any = module.rotate.weight
    assert near(weight, matrix, 1e-6)
    return inverse.back(module(source)[0], module(base)[1])


@pytest.mark.parametrize("seed", [1, 3])
@pytest.mark.parametrize("name", [*EXPRESSIBLE, "whole", "coordinates"])
def test_what_is_written_computes_the_same_when_it_is_read_here_and_there(
    name: str, seed: int, tmp_path: Path
) -> None:
    saved = (
        _plain()
        if name == "whole"
        else _plain(coordinates=(7, 2))
        if name == "coordinates"
        else _saved(name, seed=seed)
    )
    submission = save_mib([saved], tmp_path, task="capitals", model_name="SmolLM2")
    assert submission.units == ("capitals_SmolLM2_v/ResidualStream(Layer-1,Token-country)",)
    assert not submission.left_out
    (read,) = load_mib(tmp_path)
    base, source = pair(WIDTH, seed)
    wanted = _computed(saved, base, source)
    assert near(_computed(read, base, source), wanted, 1e-6)
    assert near(_their_interchange(tmp_path / submission.units[0], base, source), wanted, 1e-6)
    assert read.intervention.units[0].site == HERE
    assert (read.variable, read.model and read.model.path) == ("v", "SmolLM2")


def test_a_folder_of_the_benchmark_is_read_and_written_again(tmp_path: Path) -> None:
    torch.manual_seed(0)
    cell = tmp_path / CELL
    rotated = SubspaceInverseFeaturizerModule(_orthogonal(WIDTH, 4))
    full = SubspaceInverseFeaturizerModule(_orthogonal(WIDTH, WIDTH))
    _their_save(cell / "ResidualStream(Layer-3,Token-last_token)", rotated, None)
    _their_save(cell / "ResidualStream(Layer_4,Token_correct_symbol)", full, [0, 5])
    _their_save(cell / "ResidualStream(Layer-5,block_output,Token-correct_symbol)", None, [3, 1])
    _their_save(cell / "ResidualStream(Layer--1,Token-last_token)", None, None)
    _their_save(cell / "AttentionHead(Layer-7,Head-3,Token-all)", rotated, None)
    (tmp_path / "token_position.py").write_text(
        "raise SystemExit('no code of a submission is run')"
    )
    read = {one.intervention.units[0].site: one for one in load_mib(tmp_path)}
    base, source = pair(WIDTH, 0)
    weight: Any = rotated.rotate.weight
    square: Any = full.rotate.weight
    wanted = {
        Site(3, "residual", "last"): base + (source - base) @ weight @ weight.T,
        Site(4, "residual", "correct_symbol"): base + (source - base) @ square[:, [0, 5]] @ square[:, [0, 5]].T,
        Site(5, "residual", "correct_symbol"): torch.where(torch.arange(WIDTH) % 2 * (torch.arange(WIDTH) < 4) > 0, source, base),
        Site(0, "block_input", "last"): source,
        Site(7, "head", "all", 3): base + (source - base) @ weight @ weight.T,
    }  # fmt: skip
    assert read.keys() == wanted.keys()
    for site, vectors in wanted.items():
        assert near(_computed(read[site], base, source), vectors.detach(), 1e-6), site
        assert (read[site].variable, read[site].model and read[site].model.path) == (
            "answer_pointer",
            "Qwen2ForCausalLM",
        )
    assert load_mib(cell)[0].intervention == load_mib(tmp_path)[0].intervention
    again = save_mib(
        [one for one in read.values() if one.intervention.units[0].subspace.coordinates is None], tmp_path / "again",
        task="4_answer_MCQA", model_name="Qwen2ForCausalLM",
    )  # fmt: skip
    assert f"{CELL}/ResidualStream(Layer--1,Token-last_token)" in again.units
    assert len(again.units) == 4
    for one in load_mib(tmp_path / "again"):
        site = one.intervention.units[0].site
        assert near(_computed(one, base, source), wanted[site].detach(), 1e-6)


def _other(**changes: Any) -> SavedIntervention:
    return SavedIntervention(Intervention(**{"units": (Unit(HERE),), **changes}), variable="v")


@pytest.mark.parametrize(
    ("saved", "says"),
    [
        (_saved("boundless"), "lets parts of features through"),
        (_saved("pca"), "standardised"),
        (_saved("mask of pca"), "standardised"),
        (_saved("sae"), "no sparse autoencoder"),
        (_saved("mask of sae"), "no sparse autoencoder"),
        (_plain(Site(1, "mlp_output", "last")), "no unit for mlp_output"),
        (_plain(Site(1, "head", "last")), "no unit for head"),
        (_plain(Site(1, "residual", "a/b")), "cannot stand in the name of a file"),
        (_other(units=(Unit(HERE), Unit(Site(2, "residual", "last")))), "2 units at once"),
        (_other(units=(Unit(HERE, source_site=Site(2, "residual", "last")),)), "from another site"),
        (_other(kind="zero"), "it is zero"),
        (_other(control="placebo"), "it is placebo"),
        (SavedIntervention(_other(units=(Unit(HERE, Subspace(coordinates=(1,))),)).intervention, variable="v"), "width is not known"),
        (SavedIntervention(Intervention((Unit(HERE),))), "variable None"),
    ],
)  # fmt: skip
def test_what_mib_cannot_express_is_left_out_and_said(
    saved: SavedIntervention, says: str, tmp_path: Path
) -> None:
    other = _plain(Site(3, "residual", "last"))
    submission = save_mib([saved, other], tmp_path, task="t", model_name="m")
    assert submission.units == ("t_m_v/ResidualStream(Layer-3,Token-last_token)",)
    (line,) = submission.left_out
    assert saved.intervention.id in line
    assert says in line


def test_an_empty_mask_and_a_site_that_is_taken_are_left_out(tmp_path: Path) -> None:
    empty = _saved("mask")
    empty = SavedIntervention(
        empty.intervention, {**empty.tensors, "theta": -torch.ones(WIDTH)}, variable="v"
    )
    first, second = _saved("das"), _saved("svd")
    submission = save_mib([empty, first, second], tmp_path, task="t", model_name="m")
    assert [
        "kept no feature" in line or first.intervention.id in line for line in submission.left_out
    ] == [True, True]
    assert load_mib(tmp_path)[0].tensors["directions"].shape == (WIDTH, 2)


@pytest.mark.parametrize(("task", "model"), [("a/b", "m"), ("", "m"), ("t", "a_b"), ("t", "../m")])
def test_names_that_no_folder_can_have_are_refused(task: str, model: str, tmp_path: Path) -> None:
    with pytest.raises(JobError):
        save_mib([_plain()], tmp_path / "it", task=task, model_name=model)
    assert not (tmp_path / "it").exists()


class Harm:
    """What a pickle could do."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.touch, (Path("harm_was_done"),)


def _rewrite(ending: str, change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def damage(unit: Path) -> None:
        torch.save(change(torch.load(f"{unit}{ending}", weights_only=True)), f"{unit}{ending}")

    return damage


def _indices(text: str) -> Callable[[Path], object]:
    return lambda unit: Path(f"{unit}_indices").write_text(text)


def _foreign(content: dict[str, Any]) -> dict[str, Any]:
    content["model_info"]["featurizer_class"] = "SAEFeaturizerModule"
    return content


def _turned(content: dict[str, Any]) -> dict[str, Any]:
    key = "rotate.parametrizations.weight.0.base"
    content["state_dict"][key] = content["state_dict"][key].flip(0)
    return content


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda unit: Path(f"{unit}_inverse_featurizer").unlink(), "cannot be read"),
        (lambda unit: Path(f"{unit}_indices").unlink(), "_indices: cannot be read"),
        (lambda unit: Path(f"{unit}_featurizer").write_bytes(b"none"), "cannot be read as tensors"),
        (lambda unit: Path(f"{unit}_featurizer").write_bytes(pickle.dumps(Harm())), "cannot be read as tensors"),
        (lambda unit: torch.save({"model_info": Harm()}, f"{unit}_featurizer"), "cannot be read as "
                                                                                "tensors"),
        (_rewrite("_featurizer", lambda _: [1]), "has no model_info and state_dict"),
        (_rewrite("_featurizer", _foreign), "is of 'SAEFeaturizerModule'; only"),
        (_rewrite("_featurizer", lambda c: {**c, "state_dict": {}}), "its state has no matrix"),
        (_rewrite("_inverse_featurizer", _turned), "are of different rotations"),
        (_indices("[2]"), "names a feature of 2 that is not there"),
        (_indices("[0, 0]"), "each once"),
        (_indices('{"a": 1}'), "should be null, or features"),
        (_indices("[]"), "at least one"),
        (lambda unit: Path(f"{unit}_featurizer").rename(unit.with_name("Strange_featurizer")), "is no unit of MIB"),
        (lambda unit: (unit.parents[1] / "raysearch.json").unlink(), "does not tell model and "
                                                                     "variable"),
        (lambda unit: (unit.parents[1] / "raysearch.json").write_text("[]"), "raysearch.json: "
                                                                             "cannot be read"),
    ],
)  # fmt: skip
def test_a_damaged_or_hostile_submission_is_one_line_and_runs_nothing(
    damage: Callable[[Path], Any], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (name,) = save_mib([_saved("das")], tmp_path / "it", task="t", model_name="m").units
    damage(tmp_path / "it" / name)
    with pytest.raises(StoreError) as error:
        load_mib(tmp_path / "it")
    assert says in str(error.value)
    assert str(error.value).startswith(str(tmp_path / "it"))
    assert len(str(error.value).splitlines()) == 1
    assert not (tmp_path / "harm_was_done").exists()


def test_what_is_no_submission_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no such folder"):
        load_mib(tmp_path / "none")
    with pytest.raises(StoreError, match="has no file"):
        load_mib(tmp_path)
