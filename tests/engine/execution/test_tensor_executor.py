"""Swaps of networks on tensors: run as arrays, equal to the same rows by themselves."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import nn

import raysearch as rs
from raysearch.causal import ONE_SOURCE, Stimulus
from raysearch.core.controls import with_control
from raysearch.core.events import Block, Encoded, Measured, Task
from raysearch.core.runner_settings import RunnerSettings
from raysearch.engine.execution.tensor_executor import TensorExecutor
from raysearch.engine.networks.network import Encoder
from raysearch.engine.networks.tensor_network import TensorNetwork
from raysearch.engine.patching.rows import Row
from raysearch.engine.replica import Replica
from tests.engine.bytecodes import bytecodes
from tests.engine.test_tensors import TIMES, WIDTH, Recurrent, mlp, still, vit

KINDS = ("mlp", "gru", "vit")
SHAPES = {"mlp": (6,), "gru": (TIMES, WIDTH), "vit": (3, 16, 16)}
PATHS = {"mlp": "3.output", "gru": "out.output", "vit": "vit.embeddings"}
"""Of each, a module by its path, outside of the layers."""


@dataclass(frozen=True)
class Drawn:
    """A network, with pairs of random tensors; `digest` "": its check is not remembered."""

    kind: str
    encoded: tuple[Encoded, ...]
    dtype: str = "float32"
    digest: str = ""
    commit: None = None
    unused: tuple[()] = ()

    def open(self, pairs: Sequence[rs.Pair]) -> tuple[TensorNetwork, Encoder]:
        torch.manual_seed(0)
        model = {"mlp": mlp, "gru": lambda: still(Recurrent(nn.GRU)), "vit": vit}[self.kind]()
        last = [part for part in model.modules() if isinstance(part, nn.Linear)][-1]
        blocks = "" if self.kind == "mlp" else None
        network = TensorNetwork(model, torch.zeros(SHAPES[self.kind]), blocks)
        bases = [e.base for e in self.encoded if e.base.shape == SHAPES[self.kind]]
        last.bias -= network.logits(network.stack(bases)).mean(0)  # so that classes differ
        return network, lambda *_: self.encoded[: len(pairs)]

    def reinitialised(self, seed: int = 0) -> "Drawn":
        raise AssertionError("no control asks for it")


def drawn(kind: str, pairs: int) -> Drawn:
    draw = torch.Generator().manual_seed(1)
    at = {"first": (0,), "last": (0,)} | ({"second": (1,)} if kind != "mlp" else {})
    inputs = torch.randn(2, pairs, *SHAPES[kind], generator=draw)
    return Drawn(
        kind,
        tuple(
            Encoded(
                *(i, Stimulus.of(inputs[0, i]), {ONE_SOURCE: Stimulus.of(inputs[1, i])}, at),
                *({ONE_SOURCE: at}, {"base": (0,)}, {"x": (1,)}),
            )
            for i in range(pairs)
        ),
    )


def replica_of(world: Drawn, plain: bool = False, rows: int = 7, **more: object) -> Replica:
    nothing = rs.Input("tensors", {})
    pairs = [
        rs.Pair(e.index, nothing, {ONE_SOURCE: nothing}, {"base": "0"}, {"x": "1"}, "test")
        for e in world.encoded
    ]
    settings = RunnerSettings(rows=rows, plain=plain, **more)
    names = tuple(world.encoded[0].base_positions)
    components = ("residual", PATHS[world.kind])
    return Replica(world, pairs, names, ("x",), "w", settings=settings, components=components)


def interventions(kind: str) -> list[rs.Intervention]:
    """Whole vectors, coordinates, a drawn subspace, ablations, controls, two units at once, and a
    module outside of the layers."""
    at = "first" if kind == "mlp" else "second"
    sites = [rs.Site(layer, "residual", at) for layer in range(2)]
    path = rs.Site(None, PATHS[kind], "last")
    one = rs.Intervention((rs.Unit(sites[0]),))
    return [
        one,
        rs.Intervention((rs.Unit(rs.Site(1, "residual", "last")),)),
        rs.Intervention((rs.Unit(sites[0], rs.Subspace(coordinates=(1, 3))),)),
        rs.Intervention((rs.Unit(sites[1], rs.Subspace("random", 2)),)),
        *(rs.Intervention((rs.Unit(sites[1]),), of) for of in ("zero", "mean", "resample")),
        *(with_control(one, name) for name in ("self_swap", "random_source", "placebo")),
        rs.Intervention(tuple(map(rs.Unit, sites))),
        rs.Intervention((rs.Unit(path),)),
    ]


def outputs(replica: Replica, asked: Sequence[rs.Intervention]) -> dict[str, list[int]]:
    every = [pair.index for pair in replica.opened.encoded]
    half = len(every) // 2
    blocks = (Block("test", 0, tuple(every[:half])), Block("test", 1, tuple(every[half:])))
    found: dict[str, list[int]] = {}
    for event in replica.do(Task(0, "measure", tuple(asked), blocks)):
        assert isinstance(event, Measured), event
        found.setdefault(event.intervention, []).extend(out[0] for out in event.outputs)
    return found


@pytest.mark.parametrize("capture_bytes", [2**28, 2_000])
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_are_those_of_rows_that_run_one_by_one(kind: str, capture_bytes: int) -> None:
    """With room for all runs, and for a few."""
    world, asked = drawn(kind, 24), interventions(kind)
    fast = replica_of(world, capture_bytes=capture_bytes)
    slow = replica_of(world, plain=True)
    assert isinstance(fast._runner.executor, TensorExecutor)
    assert slow._runner.swaps is None
    wanted = outputs(slow, asked)
    assert outputs(fast, asked) == wanted
    random.Random(0).shuffle(asked)
    assert outputs(fast, asked[:3]) == {i.key: wanted[i.key] for i in asked[:3]}
    pairs = list(world.encoded)
    (builder,) = fast._builders.values()
    swaps, ran = builder.swaps(asked, pairs)
    assert swaps is not None
    assert set(ran) == set(asked), "all of them are run as arrays"
    assert len({tuple(of) for of in wanted.values()}) > 4, "they differ"
    assert fast.usage().failed_rows == 0, "no wave failed, whose rows then ran by themselves"


def test_what_further_tasks_read_is_captured_for_them() -> None:
    """The table of runs is made again where another component is read, and for further pairs."""
    world = drawn("vit", 12)
    fast, slow = replica_of(world), replica_of(world, plain=True)
    one = rs.Intervention((rs.Unit(rs.Site(0, "residual", "second")),))
    other = rs.Intervention((rs.Unit(rs.Site(1, "mlp_output", "second")),))
    for asked in (one, other, one):
        for some in ((0, 1, 2), tuple(range(12))):
            task = Task(0, "measure", (asked,), (Block("test", 0, some),))
            (ours,), (wanted,) = fast.do(task), slow.do(task)
            assert isinstance(ours, Measured)
            assert isinstance(wanted, Measured)
            assert ours.outputs == wanted.outputs
    assert fast.usage().failed_rows == 0


def test_inputs_of_several_shapes_are_run_row_by_row() -> None:
    world = drawn("gru", 8)
    longer = Stimulus.of(torch.randn(TIMES + 2, WIDTH))
    mixed = (*world.encoded[:-1], _with_base(world.encoded[-1], longer))
    world = Drawn("gru", mixed)
    fast, slow = replica_of(world), replica_of(world, plain=True)
    asked = [i for i in interventions("gru") if not i.is_ablation][:3]
    assert outputs(fast, asked) == outputs(slow, asked)
    assert not fast._builders


def _with_base(pair: Encoded, base: Stimulus) -> Encoded:
    return Encoded(
        *(pair.index, base, pair.sources, pair.base_positions, pair.source_positions),
        *(pair.answers, pair.counterfactual),
    )


def test_python_does_not_grow_with_rows() -> None:
    def cost(pairs: int, places: int) -> int:
        world = drawn("mlp", 64)
        replica = replica_of(world, rows=4096)
        asked = [
            rs.Intervention((rs.Unit(rs.Site(0, "residual", "first"), rs.Subspace(coordinates=(at,))),))
            for at in range(places)
        ]  # fmt: skip
        task = Task(0, "measure", tuple(asked), (Block("test", 0, tuple(range(pairs))),))
        replica._runner.evaluator.near_tie = replica._runner.swaps._tolerance = 0.0  # type: ignore[union-attr]
        replica.do(task)
        replica.do(task)
        return bytecodes(lambda: replica.do(task))[1]

    cost(64, 8)  # what is done once in a process is done
    base, more_pairs, more_places, both = cost(16, 2), cost(64, 2), cost(16, 8), cost(64, 8)
    rows = (64 - 16) * (8 - 2)
    assert (both - more_pairs - more_places + base) / rows < 1


def test_a_task_makes_no_run_but_those_of_its_own_sources() -> None:
    """Whatever was run before, and whatever it asks that was not asked before."""
    world = drawn("gru", 40)
    replica = replica_of(world, rows=64)
    made: list[int] = []
    run = replica._runner.cache._run

    def counted(batch: Sequence[Row], blocks: int | None = None) -> object:
        made.append(len(batch))
        return run(batch, blocks)

    replica._runner.cache._run = counted  # type: ignore[method-assign, assignment]
    one = rs.Intervention((rs.Unit(rs.Site(0, "residual", "second")),))
    other = rs.Intervention((rs.Unit(rs.Site(1, "block_input", "second")),))
    for asked, pairs, wanted in (
        (one, range(40), 40),
        (one, range(40), 0),
        (other, range(2), 2),  # it reads another component
        (other, range(4), 2),
    ):
        made.clear()
        events = replica.do(Task(0, "measure", (asked,), (Block("test", 0, tuple(pairs)),)))
        assert all(isinstance(event, Measured) for event in events)
        assert sum(made) <= wanted


def test_a_task_costs_the_same_however_many_pairs_were_seen() -> None:
    world = drawn("mlp", 400)
    replica = replica_of(world, rows=64)
    replica._runner.evaluator.near_tie = replica._runner.swaps._tolerance = 0.0  # type: ignore[union-attr]
    one = rs.Intervention((rs.Unit(rs.Site(0, "residual", "first")),))

    def cost(first: int) -> int:
        task = Task(0, "measure", (one,), (Block("test", 0, tuple(range(first, first + 20))),))
        return bytecodes(lambda: replica.do(task))[1]

    costs = [cost(first) for first in range(0, 400, 20)]
    assert max(costs[-3:]) < 1.2 * min(costs[2:5])
