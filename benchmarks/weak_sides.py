"""What the groups of `weak_cases.py` share: the cost of a cell on each side, and the matrix
products that a side has to compute.

Invariants: a bound and the seconds of its products come from one list of products.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

Way = tuple[Callable[[], object], Callable[[object], Tensor]]
"""One side of a cell: what it prepares, which is not timed, and what gives its answers."""

LONG = 8.0
"""Seconds of a side's rounds after which there is no further one. One round that is so long counts
itself, for it hardly warms anything up."""
SAME_WORK = 1.2
"""Multiply-adds of the hand-written resume over the needed ones, up to which its work is the
same."""


@dataclass(frozen=True, slots=True)
class Product:
    """A linear layer that `forward` vectors pass through, and the gradients of `backward` of
    them by its input."""

    part: nn.Linear
    forward: int
    backward: int = 0

    @property
    def multiply_adds(self) -> int:
        return self.part.weight.numel() * (self.forward + self.backward)


@dataclass(frozen=True, slots=True)
class Work:
    """The products of one cell: those that any method computes that runs whole blocks, those of the
    hand-written resume, and pyvene's."""

    needed: Sequence[Product]
    resumed: Sequence[Product]
    theirs: Sequence[Product]

    @property
    def bound(self) -> float:
        return multiply_adds(self.theirs) / multiply_adds(self.needed)

    @property
    def is_same(self) -> bool:
        """Whether the resume has the needed work and little more."""
        return multiply_adds(self.resumed) <= SAME_WORK * multiply_adds(self.needed)


@dataclass(frozen=True, slots=True)
class Measured:
    """Processor seconds of a cell on each side. `products`: of the needed products by themselves;
    `near`: rows that were too close to call."""

    name: str
    bound: float
    is_same: bool
    products: float
    ours: float
    resumed: float
    theirs: float
    near: int = 0

    @property
    def of_products(self) -> float:
        return self.products / self.ours

    @property
    def to_resumed(self) -> float:
        return self.resumed / self.ours

    @property
    def share(self) -> float:
        return self.theirs / self.ours / self.bound

    def __str__(self) -> str:
        seconds = (self.products, self.ours, self.resumed, self.theirs)
        ratios = self.of_products, self.to_resumed, self.theirs / self.ours, self.bound, self.share
        return (
            f"{self.name}: {', '.join(f'{taken:.3g}' for taken in seconds)} | "
            f"{', '.join(map(figure, ratios))}, {self.near}"
        )


def figure(ratio: float) -> str:
    """Returns a ratio with two digits that say something."""
    return f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.2g}"


def measured(
    name: str, work: Work, sides: tuple[float, float, float], scale: float = 1.0, near: int = 0
) -> Measured:
    """Returns the cost of a cell: `sides` are the seconds of ours, the resume and pyvene. `scale`:
    the seconds of the work are divided by it."""
    taken = seconds_of(work.needed) / scale
    return Measured(name, work.bound, work.is_same, taken, *sides, near)


def multiply_adds(products: Iterable[Product]) -> int:
    return sum(product.multiply_adds for product in products)


def linears(module: nn.Module) -> list[nn.Linear]:
    return [part for part in module.modules() if isinstance(part, nn.Linear)]


def through(modules: Iterable[nn.Module], forward: int, backward: int = 0) -> list[Product]:
    """Returns the products of so many vectors that pass through each of the modules."""
    return [Product(part, forward, backward) for module in modules for part in linears(module)]


def best(way: Way) -> tuple[float, Tensor]:
    """Returns processor seconds and answers: the better of two rounds, after one that warms up;
    where rounds are long, fewer."""
    prepare, run = way
    taken: list[float] = []
    while len(taken) < 3 and sum(taken) < LONG:
        given = prepare()
        began = time.process_time()
        answers = run(given)
        taken.append(time.process_time() - began)
    return min(taken[1:] or taken), answers


def same_answers(name: str, answers: Sequence[Tensor]) -> None:
    """Raises: AssertionError if pyvene or the resume often answers otherwise than ours."""
    for side, others in zip(("resumed", "pyvene"), answers[1:], strict=True):
        same = (answers[0] == others).float().mean()
        assert same >= 0.9, f"{name}: {side} has other answers ({same:.0%} equal)"


@torch.inference_mode()
def seconds_of(products: Sequence[Product]) -> float:
    """Returns processor seconds of the products alone: the better of two rounds, after one that
    warms up."""
    sizes = {(p.forward, p.part.in_features) for p in products}
    sizes |= {(p.backward, p.part.out_features) for p in products}
    vectors = {size: torch.randn(size) for size in sizes}
    taken = []
    for _ in range(3):
        began = time.process_time()
        for p in products:
            if p.forward:
                functional.linear(vectors[p.forward, p.part.in_features], p.part.weight)
            if p.backward:
                vectors[p.backward, p.part.out_features] @ p.part.weight
        taken.append(time.process_time() - began)
    return min(taken[1:])
