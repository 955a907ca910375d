"""What a run on a network of one's own found is exported with its tensors, and applied to tensors."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import nn

import raysearch as rs
from raysearch.causal import Stimulus
from raysearch.cli.main import cli
from raysearch.core.events import Encoded
from raysearch.engine.networks.components import Components
from raysearch.engine.networks.tensor_network import TensorNetwork
from raysearch.engine.patching.subspace_operations import draw_featurizer
from raysearch.errors import ModelError, PairsError, PositionError, StoreError
from raysearch.interventions.constants import mean_constants
from raysearch.notebook.tensor_swap import _located
from raysearch.report.results_table import read_table
from raysearch.storage.open_folder import open_folder
from tests.cli.conftest import QUICKSTART

CLASSES = 3


class Stages(nn.Module):
    """Says which of three numbers is the largest, by two stages without layers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.last = nn.Linear(4, 6, bias=False), nn.Linear(6, CLASSES, bias=False)
        for layer in (self.embed, self.last):
            layer.weight = nn.Parameter(torch.eye(*layer.weight.shape))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.last(self.embed(x))
        return answer


def draw(rng: Any) -> dict[str, int]:
    return {"x": rng.randrange(CLASSES), "n": rng.randrange(4096)}


PROBLEM = rs.Problem(
    "largest",
    rs.CausalModel(
        variables=(
            rs.Variable("x", tuple(range(CLASSES))),
            rs.Variable("n", tuple(range(4096))),
            rs.Variable("same", tuple(range(CLASSES))),
        ),
        parents={"same": ("x",)},
        mechanisms={"same": lambda x: x},
        output="same",
    ),
    lambda rng: (draw(rng), draw(rng)),
    lambda v: rs.Input(
        stimulus=[*(float(v["x"] == i) for i in range(CLASSES)), v["n"] / 4096], values=v
    ),
    str,
    (),
)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., rs.Run]:
    """Searches the network, as it is in memory, in a space."""

    def search(**space: Any) -> rs.Run:
        return rs.run(
            problem=PROBLEM,
            model=Stages(),
            space={"variables": ["x"], **space},
            pairs={"test": 40, "holdout": 0},
            store=tmp_path_factory.mktemp("runs"),
            quiet=True,
        )

    return search


def test_a_random_subspace_of_a_network_of_ones_own_is_exported_as_it_was_drawn(
    searched: Callable[..., rs.Run], tmp_path: Path
) -> None:
    run = searched(components=["embed"], subspaces=[{"random": [2]}])
    (hypothesis,) = run.results()["hypothesis"]
    (folder,) = run.export(hypothesis, tmp_path / "it")
    saved = rs.load_intervention(folder)
    drawn = draw_featurizer(saved.intervention, saved.intervention.units[0], 6)
    assert torch.equal(saved.tensors["directions"], drawn.tensors()["directions"])
    assert int(saved.tensors["width"]) == 6


def by_hooks(
    net: nn.Module, base: torch.Tensor, module: str, put: Callable[[torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """The logits of `base` where `put` changes what the module puts out, of shape (width)."""
    handle = net.get_submodule(module).register_forward_hook(lambda m, i, o: put(o[0])[None])
    with torch.no_grad():
        logits: torch.Tensor = net(base[None])[0]
    handle.remove()
    return logits


def seen(net: nn.Module, given: torch.Tensor, module: str) -> torch.Tensor:
    kept = []
    by_hooks(net, given, module, lambda out: kept.append(out) or out)  # type: ignore[func-returns-value]
    return kept[0]


def difference(logits: torch.Tensor, base: int, source: int) -> float:
    return float(logits[source] - logits[base])


BASE, SOURCE = torch.tensor([0.9, 0.2, 0.1, 0.5]), torch.tensor([0.1, 0.3, 0.8, 0.1])


def test_a_whole_activation_is_swapped_in_a_network_on_tensors_as_hooks_do_it() -> None:
    net = Stages()
    theirs = seen(net, SOURCE, "embed")
    swap = rs.TensorModel(net).swap(BASE, SOURCE, component="embed")
    wanted = by_hooks(net, BASE, "embed", lambda _: theirs)
    assert (swap.token_id, swap.token, swap.changed) == (2, "2", True)
    assert swap.after == pytest.approx(difference(wanted, 0, 2))
    assert swap.before == pytest.approx(float(BASE[2] - BASE[0]))
    assert str(swap).startswith("embed.output, token 0: '0' -> '2'; logit('2') - logit('0'): ")
    assert all(p.requires_grad for p in net.parameters())


def test_a_saved_subspace_is_applied_to_tensors_as_hooks_do_it(
    searched: Callable[..., rs.Run], tmp_path: Path
) -> None:
    run = searched(components=["embed"], subspaces=[{"random": [2]}])
    (hypothesis,) = run.results()["hypothesis"]
    saved = rs.load_intervention(run.export(hypothesis, tmp_path / "it")[0])
    net, q = Stages(), saved.tensors["directions"]
    theirs = seen(net, SOURCE, "embed")
    wanted = by_hooks(net, BASE, "embed", lambda x: x + (theirs - x) @ q @ q.T)
    swap = rs.TensorModel(net).swap(BASE, SOURCE, saved)
    assert swap.after == pytest.approx(difference(wanted, 0, 2), abs=1e-6)
    assert swap.token_id == int(wanted.argmax())


class Recurrent(nn.Module):
    """A GRU whose last state is read."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            self.rnn, self.out = nn.GRU(4, 5, batch_first=True), nn.Linear(5, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.out(self.rnn(x)[0][:, -1])
        return answer


@pytest.mark.parametrize("step", [1, -2])
def test_a_patched_state_of_a_recurrent_network_carries_on_and_its_whole_output_does_not(
    step: int,
) -> None:
    """As docs/how-to/your-own-model.md says."""
    net = Recurrent()
    with torch.random.fork_rng([]), torch.no_grad():
        torch.manual_seed(1)
        base, source = torch.randn(3, 4), torch.randn(3, 4)
        state = net.rnn(source[None, :2])[1]  # after step 1, from 0
        wanted = net.out(net.rnn(base[None, 2:], state)[0][0, -1])
    model = rs.TensorModel(net)
    ours, theirs = (int(net(one[None])[0].argmax()) for one in (base, source))
    swap = model.swap(base, source, 0, step)
    assert swap.after == pytest.approx(difference(wanted, ours, theirs), abs=1e-6)
    assert swap.after != pytest.approx(swap.before, abs=1e-4)
    of_all = model.swap(base, source, None, step, component="rnn.output")
    assert of_all.after == pytest.approx(of_all.before, abs=1e-6)
    with pytest.raises(PositionError, match=r"position: 3 is no token of .*it has 0\.\.2, -1 is"):
        model.swap(base, source, 0, 3)
    with pytest.raises(PositionError, match="'x' is no token of a tensor of shape"):
        model.swap(base, source, 0, "x")


def test_each_position_is_located_among_the_tokens_of_its_own_sites() -> None:
    """A site with one token does not make that of another one the first."""
    given = Stimulus.of(torch.zeros(3, 4))
    components = Components(TensorNetwork(Recurrent(), given))
    sites = rs.Site(0, "residual", "x"), rs.Site(None, "out.output", "last")

    def located(positions: dict[str, int] | None) -> dict[str, tuple[int, ...]]:
        return _located(components, sites, given, positions, {}, "position")

    assert located({"x": 1}) == {"x": (1,), "last": (0,)}
    assert located({"x": -1}) == {"x": (2,), "last": (0,)}
    with pytest.raises(PositionError, match="where 'x' stands"):
        located(None)
    with pytest.raises(PositionError, match=r"3 is no token of .*it has 0\.\.2"):
        located({"x": 3})


def test_a_mean_has_no_one_constant_after_a_continuation_which_draws_other_bases() -> None:
    network = TensorNetwork(Stages(), Stimulus.of(BASE))
    pair = Encoded(0, Stimulus.of(BASE), {}, {"last": (0,)}, {}, {"base": (0,)}, {"x": (1,)})
    unit = rs.Unit(rs.Site(None, "embed", "last"))
    with pytest.raises(PairsError, match="was continued on further pairs"):
        mean_constants(
            network, [pair, replace(pair, index=1, added=1)], rs.Intervention((unit,), kind="mean")
        )


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        (("text", SOURCE), PairsError, "base: got the text 'text'; Stages takes tensors"),
        ((BASE, SOURCE, 0), ModelError, "Stages has no layers, which residual is of"),
        ((BASE, SOURCE, None, None, "embd"), ModelError, "embd"),
        ((BASE, torch.zeros(9)), ModelError, "Stages does not run on the source"),
    ],
)
def test_a_swap_that_cannot_be_made_is_refused_in_one_line(
    arguments: tuple[Any, ...], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says) as e:
        rs.TensorModel(Stages()).swap(*arguments)
    assert "\n" not in str(e.value)


MEAN = {"units": [[{"component": "embed", "position": "last", "operation": "mean"}]]}


def test_the_constant_of_a_mean_ablation_is_exported_and_gives_the_outputs_of_the_run(
    searched: Callable[..., rs.Run], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = searched(**MEAN)
    (hypothesis,) = run.results()["hypothesis"]
    saved = rs.load_intervention(run.export(hypothesis, tmp_path / "it", model=Stages())[0])
    (constant,) = saved.tensors.values()
    assert constant.shape == (1, 6)
    net, model = Stages(), rs.TensorModel(Stages())
    said = observed(run)
    assert len(said) >= 8
    for base, answer in said:
        wanted = by_hooks(net, base, "embed", lambda _: constant[0])
        swap = model.swap(base, base, saved)
        assert swap.token_id == int(wanted.argmax()) == answer
        other = model.swap(base, SOURCE, saved)
        mine = int(net(base[None])[0].argmax())
        assert other.after == pytest.approx(difference(wanted, mine, 2), abs=1e-6)
    assert "mean ablation" in swap.where
    assert "not exported" not in caplog.text


def observed(run: rs.Run) -> list[tuple[torch.Tensor, int]]:
    """Each base of the run on which the ablation was measured, and what it put out."""
    table = read_table(open_folder(run.place), "observations").to_pylist()
    bases = {row["index"]: row["base_tensor"] for row in run.pairs.to_dict("records")}
    found = []
    for row in table:
        for pair, output in zip(row["pairs"], row["outputs"], strict=True):
            base = torch.frombuffer(bytearray(bases[pair]["data"]), dtype=torch.float32)
            found.append((base, int(output[0])))
    return found


def test_without_the_network_a_mean_is_exported_without_its_constant_which_is_said(
    searched: Callable[..., rs.Run], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = searched(**MEAN)
    (hypothesis,) = run.results()["hypothesis"]
    with caplog.at_level("WARNING", "raysearch"):
        saved = rs.load_intervention(run.export(hypothesis, tmp_path / "it")[0])
    assert not saved.tensors
    assert "run.export(..., model=model)" in caplog.text
    with pytest.raises(StoreError, match=r"constant.0 was not saved; export it again where its"):
        rs.TensorModel(Stages()).swap(BASE, SOURCE, saved)
    other = Stages()
    other.embed.weight.data *= 2
    with pytest.raises(ModelError, match="the mean would be another"):
        run.export(hypothesis, tmp_path / "other", model=other)


def test_the_constant_of_a_language_models_ablation_is_exported_from_its_files(
    tmp_path: Path,
) -> None:
    unit = {"layer": 1, "component": "residual", "position": "plus2", "operation": "mean"}
    space = {"variables": ["sum_ab"], "units": [[unit]], "components": []}
    files = shutil.copytree(QUICKSTART.parent / "planted" / "model", tmp_path / "model")
    of_files = {"path": str(files), "dtype": "float32"}
    run = rs.run(QUICKSTART, space=space, model=of_files, store=tmp_path / "runs", quiet=True)
    (hypothesis,) = run.results()["hypothesis"]
    done = CliRunner().invoke(cli, ["export", run.place, hypothesis, "--to", str(tmp_path / "it")])
    assert done.exit_code == 0, done.output
    saved = rs.load_intervention(tmp_path / "it")
    assert {name: tuple(of.shape) for name, of in saved.tensors.items()} == {"constant.0": (1, 64)}
    assert "model.swap(base, source, saved" in (tmp_path / "it" / "README.md").read_text()
    model = rs.Model.load(run.job.model.path)
    pairs = {row["index"]: row for row in run.pairs.to_dict("records")}
    table = read_table(open_folder(run.place), "observations").to_pylist()
    said = [
        (pairs[index], output[0])
        for row in table
        for index, output in zip(row["pairs"], row["outputs"], strict=True)
    ]
    assert len(said) >= 8
    for pair, output in said:
        (place,) = (p for p in pair["base_positions"] if p["name"] == "plus2")
        at = int(place["tokens"][0])
        swap = model.swap(pair["base_text"], pair["base_text"], saved, position=at)
        assert swap.token_id == output
    shutil.move(files, tmp_path / "elsewhere")
    alone = rs.load_intervention(run.export(hypothesis, tmp_path / "alone")[0])
    assert not alone.tensors, "what is stored is exported where the model is not at hand"
