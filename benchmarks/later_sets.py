"""How often a set that is built from verdicts is accepted, on a network that is really run.

A network whose interchange outcomes are known by enumeration carries an item in 200 coordinates. One
coordinate alone moves the answer on 30 % of all pairs, a set of several on `--rate` of them. A
proposer tests single coordinates first, and then the best 20 and the best 50 together: on pairs that
no earlier generation has seen, at δ/6 for both. Each search has a network and pairs of its own.

    python -m benchmarks.later_sets --rate 0.95 --searches 30   # of two sets each
    python -m benchmarks.later_sets --rate 0.8                  # the threshold: false accepts

Exits with 1 if sets of a rate above 0.9 are accepted in less than 90 % of all cases, or if those of a
rate up to 0.8 are in more searches than 5 % allow at p < .001.
"""

import argparse
import os
import random
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import torch
import yaml
from scipy.stats import binom
from torch import nn

import raysearch as rs
from raysearch.proposers.base import History

ITEMS, UNITS, SIZES = 64, 200, (20, 50)
SINGLE = 0.3
THRESHOLD, LEVEL = 0.8, 0.05
HERE = Path(__file__)


def settings() -> tuple[int, float]:
    """Returns the seed of the network and the true rate of its sets."""
    return int(os.environ["LATER_SETS_SEED"]), float(os.environ["LATER_SETS_RATE"])


class Net(nn.Module):
    """Answers the base's item, or the source's where the normalised sum of the scores of the swapped
    coordinates is among the share of all pairs that match.
    """

    def __init__(self) -> None:
        super().__init__()
        seed, self.rate = settings()
        self.layers = nn.ModuleList([nn.Identity()])
        self.scale = nn.Parameter(torch.ones(()))
        generator = torch.Generator().manual_seed(seed)
        self.scores = torch.randn(UNITS, ITEMS, ITEMS, generator=generator)
        self.cuts: dict[tuple[int, ...], float] = {}

    def forward(self, item: torch.Tensor) -> torch.Tensor:
        """Takes (row, 1) items and returns (row, item) logits."""
        hidden = item.float().repeat(1, UNITS + 1)
        for layer in self.layers:
            hidden = layer(hidden)
        found = hidden.round().long()
        out = torch.zeros(len(item), ITEMS)
        for row, values in enumerate(found):
            base, moved = int(values[-1]), (values[:-1] != values[-1]).nonzero().flatten()
            said = base
            if len(moved):
                source, units = int(values[moved[0]]), tuple(moved.tolist())
                z = self.scores[moved, base, source].sum() / len(moved) ** 0.5
                said = source if z >= self._cut(units) else base
            out[row, said] = 10.0
        return out * self.scale

    def _cut(self, units: tuple[int, ...]) -> float:
        """Returns the score from which on exactly the true share of all pairs matches."""
        if units not in self.cuts:
            every = self.scores[list(units)].sum(dim=0) / len(units) ** 0.5
            off = every[~torch.eye(ITEMS, dtype=torch.bool)].sort(descending=True).values
            rate = SINGLE if len(units) == 1 else self.rate
            self.cuts[units] = float(off[int(rate * len(off)) - 1])
        return self.cuts[units]


def network() -> nn.Module:
    return Net()


def problem() -> rs.Problem:
    """The problem whose one variable is the item."""
    values = tuple(range(ITEMS))
    variables = (rs.Variable("x", values), rs.Variable("y", values))
    model = rs.CausalModel(variables, {"y": ("x",)}, {"y": lambda x: x}, output="y")

    def sample(rng: random.Random) -> tuple[dict[str, int], dict[str, int]]:
        a, b = rng.sample(values, 2)
        return {"x": a}, {"x": b}

    def render(setting: dict[str, int]) -> rs.Input:
        return rs.Input(stimulus=[float(setting["x"])])

    return rs.Problem("sets", model, sample, render, str, ())


class BestTogether:
    """Proposes single coordinates, and then the best of them together."""

    name = "best together"
    max_hypotheses = None

    def __init__(self, space: object) -> None:
        pass

    def propose(self, known: History) -> Iterable[rs.Hypothesis]:
        """Returns the next generation."""
        if known.generations == 0:
            return [_of((unit,)) for unit in range(UNITS)]
        if known.generations > 1:
            return []
        ranked = sorted(
            known.decided.values(), key=lambda d: (-(d.matches + 1) / (d.n + 2), d.hypothesis.id)
        )
        best = [d.hypothesis.intervention.units[0].subspace.coordinates[0] for d in ranked]
        return [_of(tuple(sorted(best[:size]))) for size in SIZES]


def _of(units: tuple[int, ...]) -> rs.Hypothesis:
    unit = rs.Unit(rs.Site(0, "residual", "last"), rs.Subspace(coordinates=units))
    return rs.Hypothesis("x", rs.Intervention((unit,)))


def search(seed: int, rate: float, folder: Path) -> tuple[int, int]:
    """Runs a search; returns how many of its sets are accepted, and how many it tested."""
    os.environ |= {"LATER_SETS_SEED": str(seed), "LATER_SETS_RATE": str(rate)}
    job = {
        "name": "later-sets",
        "model": {"path": f"{HERE}:network"},
        "problem": {"use": f"{HERE}:problem"},
        "answer": {"compare": "class"},
        "pairs": {"test": 256, "fit": 0, "holdout": 16, "seed": seed},
        "space": {
            "variables": ["x"],
            "layers": [0],
            "components": ["residual"],
            "positions": ["last"],
        },
        "propose": {"use": f"{HERE}:BestTogether"},
        "test": {"max_pairs": 256, "threshold": THRESHOLD, "false_accept": LEVEL},
        "resources": {"rows": 4096},
    }
    path = folder / "job.yaml"
    path.write_text(yaml.safe_dump(job))
    run = rs.run(path, store=folder / f"runs-{seed}", tracking_uri="none", quiet=True)
    sets = [row for row in run.results().to_dict("records") if row["features"] > 1]
    return sum(row["verdict"] == "accept" for row in sets), len(sets)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rate", type=float, default=0.95)
    parser.add_argument("--searches", type=int, default=30)
    parser.add_argument("--first", type=int, default=0, help="seed of the first search")
    asked = parser.parse_args()
    accepted = proposed = searches = 0
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(asked.first, asked.first + asked.searches):
            found, of = search(seed, asked.rate, Path(folder))
            print(f"search {seed}: {found} of {of} sets accepted", flush=True)
            accepted, proposed, searches = accepted + found, proposed + of, searches + (found > 0)
    print(
        f"true IIA {asked.rate:g}: {accepted} of {proposed} sets accepted "
        f"({accepted / proposed:.2f}), some in {searches} of {asked.searches} searches"
    )
    too_few = asked.rate > 0.9 and accepted < 0.9 * proposed
    too_many = asked.rate <= THRESHOLD and binom.sf(searches - 1, asked.searches, LEVEL) < 1e-3
    sys.exit(too_few or too_many)


if __name__ == "__main__":
    main()
