"""Trained rotations, ours beside those of pyvene 0.1.8: how good they come out after the same
training.

    make install && .venv/bin/python benchmarks/das_equals_pyvene.py [--methods low_rank] [--seeds 2] [--steps 100]

jobs/models/add_three_planted, a + b after layer 1 at the second "+", where it fills 8 known
directions of 64. Both sides take the same fit pairs in the same batches, as many steps of Adam, and
the same learning rates by the same schedule; both are scored by their last intervention (ours:
nothing is held back to choose an earlier one) on the change pairs of the holdout, by arg max. Each
begins where it begins by itself, a random rotation of its own for each seed; with `--start shared`,
pyvene begins where ours does.

- low_rank: LowRankRotatedSpaceIntervention of 8 directions, beside our das of 8;
- full: RotatedSpaceIntervention, 64 x 64, of which the first 8 coordinates are interchanged, beside
  the same;
- boundless: BoundlessRotatedSpaceIntervention beside our boundless, both cooled from
  `--temperature` to 0.1, the boundary as a penalty.

What remains apart is how rotations are parametrized: QR in ours, Householder (low rank) and matrix
exponential in pyvene, so that one learning rate does not turn them equally fast: a step from an
orthonormal start moves a direction twice as far by Householder as by the others (ours is put back
to its Q before each step, so that it does not grow). `--rate-ratio` is for seeing that.

Ours runs by tasks of a replica, as in a search; pyvene as its documentation trains. Where a
boundary collapses (it falls to its clamp, from where no gradient brings it back), ours fails and
gives nothing to score; pyvene's is counted, and scored as it is. The last line is the largest
difference of the means.
"""

import argparse
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyvene
import torch
from pyvene_rotation import around
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

import raysearch as rs
from raysearch.causal import Split
from raysearch.core.events import Block, Encoded, Failed, Fitted, Measured, Seed, Task
from raysearch.core.fit_keys import FitKeys
from raysearch.core.model_source import ModelSource
from raysearch.core.runner_settings import RunnerSettings
from raysearch.engine.featurizers.construction import make_untrained
from raysearch.engine.featurizers.featurizer import TemperatureSchedule
from raysearch.engine.loading.load import load
from raysearch.engine.replica import Replica
from raysearch.engine.training.batches import batch_of
from raysearch.engine.training.optimizer import set_rates
from raysearch.problems.add_three import POSITIONS, problem

MODEL = Path(__file__).parent.parent / "jobs" / "models" / "add_three_planted"
VARIABLE, LAYER, POSITION, K, WIDTH = "sum_ab", 1, "plus2", 8, 64
COLDEST = 0.1
CLAMP = 1e-3
"""What neither side lets the boundary fall below."""


@dataclass(frozen=True, slots=True)
class Method:
    """`more`: what pyvene's intervention is told. `swapped`: how many of its coordinates are
    interchanged (None: as it says)."""

    name: str
    subspace: rs.Subspace
    theirs: type
    more: Mapping[str, int]
    swapped: int | None = None

    @property
    def intervention(self) -> rs.Intervention:
        return rs.Intervention(
            (rs.Unit(rs.Site(LAYER, "residual", POSITION), self.subspace),), variable=VARIABLE
        )


METHODS = {
    one.name: one
    for one in (
        Method(
            "low_rank",
            rs.Subspace("das", K),
            pyvene.LowRankRotatedSpaceIntervention,
            {"low_rank_dimension": K},
        ),
        Method("full", rs.Subspace("das", K), pyvene.RotatedSpaceIntervention, {}, K),
        Method("boundless", rs.Subspace("boundless"), pyvene.BoundlessRotatedSpaceIntervention, {}),
    )
}


@dataclass(frozen=True, slots=True)
class Trained:
    """What came of one seed. `iia`: None where there is nothing to score; `width`: that a boundary
    found."""

    iia: float | None
    width: float | None
    collapsed: bool


@dataclass(frozen=True, slots=True)
class Pairs:
    """`fit`: pairs to train on; `holdout`: change pairs to score on."""

    fit: tuple[Encoded, ...]
    holdout: tuple[Encoded, ...]


def main() -> None:
    asked = _asked()
    torch.set_num_threads(asked.threads)
    recipe = FitKeys().model_copy(
        update={
            "steps": asked.steps,
            "batch": asked.batch,
            "learning_rate": asked.learning_rate,
            "boundary_learning_rate": asked.learning_rate,
            "validation": 0.0,
            "temperature": asked.temperature,
            "penalty": asked.penalty,
        }
    )
    drawn = rs.draw_pairs(
        problem(), (VARIABLE,), {"fit": asked.fit, "holdout": asked.holdout}, asked.pairs_seed
    )
    own = recipe.model_copy(update={"learning_rate": recipe.learning_rate * asked.rate_ratio})
    source, settings = ModelSource(str(MODEL)), RunnerSettings(threads=asked.threads, recipe=own)
    replica = Replica(load(source), drawn, POSITIONS, (VARIABLE,), "benchmark", settings=settings)
    pairs = _pairs(replica, drawn)
    model = load(source).model
    methods, seeds = [METHODS[name] for name in asked.methods], range(asked.seeds)
    print(
        f"pairs           {len(pairs.fit)} to fit, {len(pairs.holdout)} change pairs of "
        f"{asked.holdout} of the holdout"
    )
    print(
        f"training        {recipe.steps} steps of {recipe.batch}, {recipe.optimizer}, "
        f"{recipe.learning_rate:g}, "
        f"{recipe.schedule} after {recipe.warmup:.0%} of warm-up; {asked.seeds} seeds, "
        f"{asked.start} starts"
        + (f"; our rotations at {own.learning_rate:g}" if own != recipe else "")
    )
    print(
        f"boundless       temperature {recipe.temperature:g} to {COLDEST:g}, boundary at "
        f"{recipe.learning_rate:g}, "
        f"of weight {recipe.penalty:g}"
    )
    off = []
    for method in methods:
        ours = _ours(replica, method, pairs, seeds, recipe.steps)
        theirs = [
            _pyvene(model, method, pairs, seed, recipe, asked.start == "shared") for seed in seeds
        ]
        _tell(method, theirs, ours)
        means = [_mean(side) for side in (theirs, ours)]
        off += [abs(means[0] - means[1])] if None not in means else []
    print(f"difference: {max(off):.4f}" if off else "difference: none, nothing is left to compare")


def _asked() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument(
        "--learning-rate", type=float, default=1e-2, help="of rotation and boundary"
    )
    parser.add_argument(
        "--rate-ratio", type=float, default=1.0, help="of our rotation's learning rate to pyvene's"
    )
    parser.add_argument(
        "--temperature", type=float, default=2.0, help="from which boundless is cooled"
    )
    parser.add_argument(
        "--penalty", type=float, default=1.0, help="weight of boundless's boundary in the loss"
    )
    parser.add_argument("--start", choices=["own", "shared"], default="own")
    parser.add_argument("--fit", type=int, default=1024, help="pairs")
    parser.add_argument("--holdout", type=int, default=512, help="pairs")
    parser.add_argument("--pairs-seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    return parser.parse_args()


def _pairs(replica: Replica, drawn: Sequence[rs.Pair]) -> Pairs:
    splits: dict[int, Split] = {pair.index: pair.split for pair in drawn}
    encoded = replica.opened.encoded
    return Pairs(
        tuple(e for e in encoded if splits[e.index] == "fit"),
        tuple(
            e
            for e in encoded
            if splits[e.index] == "holdout" and e.counterfactual[VARIABLE] != e.answers["base"]
        ),
    )


def _ours(
    replica: Replica, method: Method, pairs: Pairs, seeds: Sequence[int], steps: int
) -> list[Trained]:
    """All seeds in one company."""
    fit, holdout = (
        Block(split, 0, tuple(e.index for e in part))
        for split, part in (("fit", pairs.fit), ("holdout", pairs.holdout))
    )
    asked = method.intervention
    task = Task(
        0, "fit", (asked,), (fit,), seeds=tuple(Seed(asked, s) for s in seeds), steps=(0, steps)
    )
    trained = []
    for event in replica.do(task):
        if isinstance(event, Failed):
            assert event.error_type == "CollapsedError", event.message
            trained.append(Trained(None, None, True))
            continue
        assert isinstance(event, Fitted)
        estimate = Task(1, "estimate", (replace(asked, fit=event.fit),), (holdout,))
        (measured,) = replica.do(estimate, event.tensors)
        assert isinstance(measured, Measured), measured
        said = [ids for (ids,) in measured.outputs]
        trained.append(Trained(_iia(said, pairs.holdout), event.found.get("width"), False))
    return trained


def _pyvene(
    model: PreTrainedModel, method: Method, pairs: Pairs, seed: int, recipe: FitKeys, shared: bool
) -> Trained:
    """As its documentation trains, with our batches, rates and temperatures."""
    intervenable, intervention = _wrapped(model, method, seed, shared)
    bounded = isinstance(intervention, pyvene.BoundlessRotatedSpaceIntervention)
    groups = [
        {"params": list(intervention.rotate_layer.parameters()), "rate": recipe.learning_rate}
    ]
    if bounded:
        groups += [
            {
                "params": [intervention.intervention_boundaries],
                "rate": recipe.boundary_learning_rate,
            }
        ]
    optimizer = torch.optim.Adam(groups)
    by_index = {e.index: e for e in pairs.fit}
    for step in range(recipe.steps):
        batch = [by_index[i] for i in batch_of(sorted(by_index), recipe.batch, seed, step)]
        if bounded:
            cooling = TemperatureSchedule(recipe.temperature or 0.0, COLDEST)
            intervenable.set_temperature(torch.tensor(cooling.at(step / max(1, recipe.steps - 1))))
        wanted = torch.tensor([e.counterfactual[VARIABLE][0] for e in batch])
        loss = functional.cross_entropy(_logits(intervenable, batch), wanted)
        if bounded:
            loss = loss + (recipe.penalty or 0.0) * intervention.intervention_boundaries.sum()
        loss.backward()
        set_rates(optimizer, recipe.factor(step))
        optimizer.step()
        intervenable.set_zero_grad()
    with torch.no_grad():
        said = [int(line.argmax()) for line in _logits(intervenable, pairs.holdout)]
    iia = _iia(said, pairs.holdout)
    if not bounded:
        return Trained(iia, None, False)
    boundary = float(intervention.intervention_boundaries.detach())
    return Trained(iia, min(max(boundary, CLAMP), 1.0) * WIDTH, boundary <= CLAMP)


def _wrapped(
    model: PreTrainedModel, method: Method, seed: int, shared: bool
) -> tuple[pyvene.IntervenableModel, torch.nn.Module]:
    with torch.random.fork_rng():
        torch.manual_seed(1_000 + seed)  # ours draws the same numbers from the same seed
        intervenable, intervention = around(model, LAYER, method.theirs, **method.more)
    if method.swapped is not None:
        intervention.set_interchange_dim(method.swapped)
    if shared:
        intervention.rotate_layer.weight = _start(method, seed)
    return intervenable, intervention


def _start(method: Method, seed: int) -> Tensor:
    """The rotation with which our fit begins; made a whole one, where pyvene wants that."""
    generator = torch.Generator().manual_seed(seed)
    begun = make_untrained(method.subspace, WIDTH, generator).tensors()["directions"]
    if method.swapped is None:
        return begun
    q, _ = torch.linalg.qr(
        torch.cat([begun, torch.randn(WIDTH, WIDTH - K, generator=generator)], dim=1)
    )
    return torch.cat([begun, q[:, K:]], dim=1)


def _logits(intervenable: pyvene.IntervenableModel, pairs: Sequence[Encoded]) -> Tensor:
    """At the last token, with the intervention; of shape (pair, token of the vocabulary)."""
    (token,) = {t for e in pairs for t in e.base_positions[POSITION]}
    bases = torch.tensor([e.base for e in pairs])
    sources = torch.tensor([e.sources["source"] for e in pairs])
    _, out = intervenable({"input_ids": bases}, [{"input_ids": sources}], {"sources->base": token})
    logits: Tensor = out.logits[:, -1]
    return logits


def _iia(said: Sequence[int], pairs: Sequence[Encoded]) -> float:
    matches = [(one,) == e.counterfactual[VARIABLE] for one, e in zip(said, pairs, strict=True)]
    return sum(matches) / len(matches)


def _mean(trained: Sequence[Trained]) -> float | None:
    """IIA over the seeds; None where one cannot be scored."""
    scored = [one.iia for one in trained if one.iia is not None]
    return statistics.mean(scored) if len(scored) == len(trained) else None


def _tell(method: Method, theirs: Sequence[Trained], ours: Sequence[Trained]) -> None:
    line = f"{method.name:<15} pyvene {_side(theirs)}, ours {_side(ours)}"
    means = [_mean(side) for side in (theirs, ours)]
    print(
        line if None in means else f"{line}, ours - pyvene {means[1] - means[0]:+.4f}", flush=True
    )
    for name, side in (("pyvene", theirs), ("ours", ours)):
        told = ["-" if one.iia is None else f"{one.iia:.4f}" for one in side]
        widths = [f"{one.width:.1f}" for one in side if one.width is not None]
        print(
            f"  {name:<13} {' '.join(told)}" + (f", widths {' '.join(widths)}" if widths else ""),
            flush=True,
        )


def _side(trained: Sequence[Trained]) -> str:
    collapsed = sum(one.collapsed for one in trained)
    scored = [one.iia for one in trained if one.iia is not None]
    told = f"{statistics.mean(scored):.4f} ({_deviation(scored):.4f})" if scored else "nothing"
    return f"{told}, {collapsed} of {len(trained)} collapsed" if collapsed else told


def _deviation(scored: Sequence[float]) -> float:
    return statistics.stdev(scored) if len(scored) > 1 else 0.0


if __name__ == "__main__":
    main()
