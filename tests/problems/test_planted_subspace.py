"""The planted twin of add_three: a + b in 8 known directions of one site, and nowhere else."""

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import cross_entropy

from raysearch import Pair, draw_pairs
from raysearch.problems.add_three import problem
from tests.problems.swaps import Small

VARIABLES = ("a", "b", "c", "sum_ab", "total")
LAYER, TOKEN = 1, 3
"""After the second block, at the second "+"."""


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def planted() -> Small:
    return Small("add_three_planted")


@pytest.fixture(scope="module")
def directions(planted: Small) -> Tensor:
    return load_file(planted.folder / "planted.safetensors")["directions"]


@pytest.fixture(scope="module")
def pairs() -> tuple[Pair, ...]:
    return draw_pairs(problem(), VARIABLES, {"test": 2000}, seed=11)


def trained(
    small: Small, pairs: tuple[Pair, ...], size: int, seed: int, start: Tensor | None = None
) -> Tensor:
    """Directions [width, size] found by training on the pairs: the textbook's distributed alignment
    search, in a few lines."""
    generator = torch.Generator().manual_seed(seed)
    width = small.model.config.hidden_size
    raw = torch.randn(width, size, generator=generator) if start is None else start.clone()
    raw.requires_grad_(True)
    optimizer = torch.optim.Adam([raw], lr=0.03)
    wanted = torch.tensor(
        [int(p.counterfactual["sum_ab"]) for p in pairs]
    )  # a number's id is the number
    for _ in range(200):
        chosen = torch.randint(len(pairs), (64,), generator=generator)
        logits = small.swapped(
            [pairs[i] for i in chosen.tolist()], LAYER, TOKEN, torch.linalg.qr(raw)[0]
        )
        loss = cross_entropy(logits, wanted[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return torch.linalg.qr(raw)[0].detach()


def test_its_folder_is_under_two_megabytes(planted: Small) -> None:
    assert sum(path.stat().st_size for path in planted.folder.iterdir()) < 2_000_000


def test_it_solves_every_sum(planted: Small) -> None:
    asked = problem()
    numbers = [(a, b, c) for a in range(10) for b in range(10) for c in range(10)]
    shown = [asked.render({"a": a, "b": b, "c": c}) for a, b, c in numbers]
    logits = planted.plain(shown)
    assert planted.answers(logits) == [str(sum(n)) for n in numbers]
    best = logits.topk(2).values
    assert (best[:, 0] - best[:, 1]).min() > 4


def test_the_planted_directions_carry_a_plus_b_and_the_rest_carries_nothing(
    planted: Small, directions: Tensor, pairs: tuple[Pair, ...]
) -> None:
    assert directions.shape == (64, 8)
    torch.testing.assert_close(directions.T @ directions, torch.eye(8))
    assert planted.iia(pairs, "sum_ab", LAYER, TOKEN, directions) == 1
    beside = torch.linalg.qr(
        torch.cat([directions, torch.randn(64, 56, generator=torch.Generator())], 1)
    )[0][:, 8:]
    answers = planted.answers(planted.swapped(pairs, LAYER, TOKEN, beside))
    assert answers == [pair.answers["base"] for pair in pairs]


def test_a_whole_swap_carries_a_plus_b_at_the_planted_site_and_nowhere_else(
    planted: Small, pairs: tuple[Pair, ...]
) -> None:
    found = {
        (la, t): planted.iia(pairs[:500], "sum_ab", la, t) for la in range(3) for t in range(6)
    }
    assert found.pop((LAYER, TOKEN)) == 1
    assert max(found.values()) < 0.2


def test_the_whole_vector_of_a_word_carries_its_number(
    planted: Small, pairs: tuple[Pair, ...]
) -> None:
    assert (
        planted.iia(pairs, "a", 0, 0)
        == planted.iia(pairs, "b", 0, 2)
        == planted.iia(pairs, "c", 0, 5)
        == 1
    )
    assert planted.iia(pairs, "total", 2, 5) == 1


def test_leaving_out_any_one_of_random_directions_within_the_planted_ones_loses_answers(
    planted: Small, directions: Tensor, pairs: tuple[Pair, ...]
) -> None:
    for seed in range(20):
        turned = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(seed)))[
            0
        ]
        assert planted.iia(pairs[:500], "sum_ab", LAYER, TOKEN, directions @ turned[:, :7]) < 0.9


@pytest.mark.slow
def test_training_recovers_the_planted_directions_and_fewer_do_not_do(
    planted: Small, directions: Tensor, pairs: tuple[Pair, ...]
) -> None:
    fit, fresh = pairs[:1000], pairs[1000:]
    found = trained(planted, fit, 8, seed=0)
    assert planted.iia(fresh, "sum_ab", LAYER, TOKEN, found) >= 0.97
    assert torch.linalg.svdvals(found.T @ directions).mean() >= 0.95
    seven = trained(planted, fit, 7, seed=0, start=directions[:, :7])
    assert planted.iia(fresh, "sum_ab", LAYER, TOKEN, seven) < 0.9
