"""Interchange intervention training of the model that tags prices: it is trained to have its
variables at known places.

Geiger et al., 2022, "Inducing Causal Structure for Interpretable Neural Networks": a swap between
two texts, and the loss of the answer that the causal model gives for it.

Invariants: SWAPS says all that is trained beside the answers; each variable has its own columns of
one random rotation; what is swapped is swapped in the residual after a layer at one token, and
gradients reach base and source.
"""

from dataclasses import dataclass

import torch
from small_model import Examples, draw
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import LlamaForCausalLM

WIDTH = 64
PRICE, LAST = 16, 18  # the tokens of the price and of the colon
BOUNDS = ("lower_bound_ok", "upper_bound_ok")
SIZES = {"lower_bound_ok": 4, "upper_bound_ok": 4, "answer": 1}
"""How many directions each variable is given."""


@dataclass(frozen=True, slots=True)
class Swap:
    """What comes from the source after a layer at a token: the directions of the variables
    `inside`, or all but those of `outside`.

    `moves`: the variables that are then the source's. `share`: how often it is drawn, beside the
    others.
    """

    layer: int
    token: int
    moves: tuple[str, ...] = ()
    inside: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()
    share: float = 1.0

    def __str__(self) -> str:
        what = " and ".join(self.inside) or (
            f"all but {' and '.join(self.outside)}" if self.outside else "the whole"
        )
        return f"{what} after layer {self.layer}, token {self.token}"


SWAPS = (
    Swap(1, PRICE, moves=BOUNDS[:1], inside=BOUNDS[:1], share=4),
    Swap(1, PRICE, moves=BOUNDS[1:], inside=BOUNDS[1:], share=4),
    Swap(1, PRICE, moves=BOUNDS),  # the whole vector: no other token has a say
    Swap(1, PRICE, outside=BOUNDS),  # nor the rest of this one
    Swap(2, LAST, moves=("answer",), inside=("answer",)),
    Swap(2, LAST, outside=("answer",)),  # by then the boundaries are over
    Swap(0, PRICE, moves=("price",), share=2),  # by then they have not begun
)


@dataclass(frozen=True, slots=True)
class Priced:
    """Texts with what is in them: lower, upper and price in cents, int64, [text, 3]; `answers`: the
    ids of " no" and " yes"."""

    texts: Examples
    cents: Tensor
    answers: Tensor


@dataclass(frozen=True, slots=True)
class _Swapping:
    """Which of SWAPS befalls each row [row], the residual of the sources by layer, what each swap
    lets through [swap, 64, 64]."""

    chosen: Tensor
    source: dict[int, Tensor]
    through: Tensor

    def at(self, layer: int, out: Tensor) -> Tensor:
        """The residual after a layer [row, token, 64], with the source's put in."""
        rows = torch.nonzero(
            torch.tensor([swap.layer == layer for swap in SWAPS])[self.chosen]
        ).squeeze(1)
        place = (rows, torch.tensor([swap.token for swap in SWAPS])[self.chosen[rows]])
        change = self.source[layer][place] - out[place]
        moved = torch.einsum("rd,rde->re", change, self.through[self.chosen[rows]])
        return out.index_put(place, moved, accumulate=True)


def directions(seed: int) -> dict[str, Tensor]:
    """For each variable of SIZES its own columns of a random rotation, [64, size]."""
    generator = torch.Generator().manual_seed(seed)
    rotation, _ = torch.linalg.qr(
        torch.randn(WIDTH, WIDTH, generator=generator, dtype=torch.float64)
    )
    columns = rotation[:, : sum(SIZES.values())].float().split(list(SIZES.values()), dim=1)
    return {name: own.contiguous() for name, own in zip(SIZES, columns, strict=True)}


class SwapLoss:
    """The loss of a step: the answers to the sources, and the answers after one swap in each
    row."""

    def __init__(self, learned: Priced, planted: dict[str, Tensor]) -> None:
        self.learned = learned
        self.through = torch.stack([_through(swap, planted) for swap in SWAPS])
        self.shares = torch.tensor([swap.share for swap in SWAPS])

    def __call__(
        self, model: LlamaForCausalLM, texts: Examples, rows: int, generator: torch.Generator
    ) -> Tensor:
        base, source = draw(texts, rows, generator), draw(texts, rows, generator)
        chosen = torch.multinomial(self.shares, rows, replacement=True, generator=generator)
        plain, swapped, wanted = self._swap(model, self.learned, base, source, chosen)
        return cross_entropy(plain, texts.answers[source]) + cross_entropy(swapped, wanted)

    @torch.no_grad()
    def rates(
        self, model: LlamaForCausalLM, tested: Priced, rows: int, seed: int
    ) -> dict[Swap, tuple[float, float]]:
        """For each swap, how often its answer is the causal model's: where that is not the base's,
        and where it is (nan: never)."""
        generator = torch.Generator().manual_seed(seed)
        base, source = draw(tested.texts, rows, generator), draw(tested.texts, rows, generator)
        found = {}
        for place, swap in enumerate(SWAPS):
            _, swapped, wanted = self._swap(model, tested, base, source, torch.full((rows,), place))
            right, changed = swapped.argmax(1) == wanted, wanted != tested.texts.answers[base]
            found[swap] = (
                right[changed].float().mean().item(),
                right[~changed].float().mean().item(),
            )
        return found

    def _swap(
        self, model: LlamaForCausalLM, among: Priced, base: Tensor, source: Tensor, chosen: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits of the sources and of the swapped bases [row, token of the vocabulary], and the
        wanted ids [row]."""
        plain, kept = _run(model, among.texts.ids[source])
        swapped, _ = _run(model, among.texts.ids[base], _Swapping(chosen, kept, self.through))
        wanted = among.answers[_is_yes(among.cents[base], among.cents[source], chosen).long()]
        return plain, swapped, wanted


def _through(swap: Swap, planted: dict[str, Tensor]) -> Tensor:
    """The projection that a swap lets through, [64, 64]."""
    named = [planted[name] @ planted[name].T for name in swap.inside or swap.outside]
    projection = torch.stack([torch.zeros(WIDTH, WIDTH), *named]).sum(0)
    return projection if swap.inside else torch.eye(WIDTH) - projection


def _is_yes(base: Tensor, source: Tensor, chosen: Tensor) -> Tensor:
    """What the causal model says after each row's swap, [row]; base and source in cents, [row,
    3]."""
    takes = {
        name: torch.tensor([name in swap.moves for swap in SWAPS])[chosen]
        for name in (*BOUNDS, "answer", "price")
    }
    (lower, upper, _), price = base.T, torch.where(takes["price"], source[:, 2], base[:, 2])
    lower_ok = torch.where(takes["lower_bound_ok"], source[:, 0] <= source[:, 2], lower <= price)
    upper_ok = torch.where(takes["upper_bound_ok"], source[:, 2] <= source[:, 1], price <= upper)
    answer = (source[:, 0] <= source[:, 2]) & (source[:, 2] <= source[:, 1])
    return torch.where(takes["answer"], answer, lower_ok & upper_ok)


def _run(
    model: LlamaForCausalLM, ids: Tensor, swapping: _Swapping | None = None
) -> tuple[Tensor, dict[int, Tensor]]:
    """Logits at the last token, and the residual after each layer of SWAPS, [row, token, 64]."""
    kept: dict[int, Tensor] = {}

    def hook(layer: int, out: Tensor) -> Tensor:
        kept[layer] = out if swapping is None else swapping.at(layer, out)
        return kept[layer]

    handles = [
        model.model.layers[layer].register_forward_hook(
            lambda _m, _i, out, layer=layer: hook(layer, out)
        )
        for layer in sorted({swap.layer for swap in SWAPS})
    ]
    try:
        return model(ids, use_cache=False, logits_to_keep=1).logits[:, -1], kept
    finally:
        for handle in handles:
            handle.remove()
