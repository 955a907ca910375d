"""Makes jobs/models/add_three_planted: a GPT-2 with weights written by hand, in which a + b stands
in 8 known directions of one site.

    python scripts/plant_add_three.py [--to FOLDER] [--seed N]

Three blocks read "3+5+4=" and answer "12" (docs/reference/problems/add_three_planted.md draws it):

    block 0   "=" takes c from its word
    block 1   the second "+" takes a and b from their words, and writes the code of a + b: PLANTED
    block 2   "=" takes the code, and only the code, from the second "+"; with c it makes the answer

Invariants: every direction of the residual is a column of one random rotation, so no coordinate
means anything; a block reads and writes the directions that it names and no other; nothing but
block 2's read of the code uses the second "+" after block 1.

The code of a sum s is one of 19 points of length 1 in 8 dimensions (a harmonic frame): the angle s
/ 19 of a turn, times each of TURNS, as cosine and sine. A code is read with little tolerance: where
it is not within NEAR of one of the 19, the answer is no number but "=". So a swap that leaves out
one dimension of the 8, whichever, mostly ends between two codes. Nothing else that the site holds
gives the code by a linear map, so that no other subspace does as well.
"""

import argparse
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import torch
from safetensors.torch import save_file
from small_model import save
from torch import Tensor
from train_add_three import tokenizer
from transformers import GPT2Config, GPT2LMHeadModel

FOLDER = Path(__file__).resolve().parents[1] / "jobs" / "models" / "add_three_planted"
WIDTH, BLOCKS, HEADS, UNITS = 64, 3, 4, 192
A, PLUS1, B, PLUS2, C, LAST = range(
    6
)  # the tokens of a text; "+" has nothing to lend where a head has nothing to take
PLUS, EQUALS = 28, 29  # their ids
NUMBERS, SUMS, TOTALS, SIZE = 10, 19, 28, 8
PLACE = 64.0  # length of a position's direction, beside which all else (of length 1) is small: LayerNorm shrinks it by the same
SHRINK = WIDTH**0.5 / PLACE
GATE, SURE = (
    2.0,
    30.0,
)  # what a hidden unit loses where its place or number is not there; the score of the token attended to
TURNS = (
    1,
    2,
    3,
    8,
)  # of all choices the one whose codes are least alike: their products are at most 0.36
NEAR = 0.08  # a code is known by its product with the right one: above 1 - NEAR
ALIVE = 0.5  # added to all products, which are above -0.44, so that no unit is ever cut off
LOGIT = 60.0  # logits for one unit of evidence: the right answer leads by 60 * 0.08, less what LayerNorm takes


@dataclass(frozen=True)
class Directions:
    """Orthonormal columns, [WIDTH, n] each; all at a right angle to (1, ..., 1), so that there is
    no mean for LayerNorm to take."""

    place: Tensor  # one for each token of the text
    sign: Tensor  # plus and minus: "+" and "="
    number: Tensor  # which number a word is
    carried: Tensor  # c, at "="
    code: Tensor  # the planted subspace
    work: Tensor  # a and b at the second "+"; the total at "="

    @classmethod
    def random(cls, seed: int) -> "Directions":
        generator = torch.Generator().manual_seed(seed)
        raw = torch.randn(WIDTH, WIDTH, generator=generator, dtype=torch.float64)
        raw[:, 0] = 1
        free = torch.linalg.qr(raw)[0][:, 1:]
        return cls(*free.split([6, 1, NUMBERS, NUMBERS, SIZE, TOTALS], dim=1))


def codes() -> Tensor:
    """The code of each sum, [SUMS, SIZE], of length 1."""
    angles = (
        torch.arange(SUMS, dtype=torch.float64)[:, None]
        * torch.tensor(TURNS)
        * (2 * math.pi / SUMS)
    )
    return torch.cat([angles.cos(), angles.sin()], 1) / len(TURNS) ** 0.5


def plant(seed: int) -> tuple[GPT2LMHeadModel, Tensor]:
    """The model, and the planted directions [WIDTH, SIZE]."""
    config = GPT2Config(
        vocab_size=len(tokenizer()),
        n_positions=8,
        n_embd=WIDTH,
        n_layer=BLOCKS,
        n_head=HEADS,
        n_inner=UNITS,
        activation_function="relu",
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = GPT2LMHeadModel(config)
    for (
        name,
        parameter,
    ) in model.named_parameters():  # LayerNorms stay as they are made: weight 1, bias 0
        if ".ln_" not in name:
            torch.nn.init.zeros_(parameter)
    d, wanted = Directions.random(seed), codes()
    with torch.no_grad():
        transformer = model.transformer
        transformer.wte.weight[:NUMBERS] = d.number.T.float()
        transformer.wte.weight[PLUS], transformer.wte.weight[EQUALS] = (
            d.sign[:, 0].float(),
            -d.sign[:, 0].float(),
        )
        transformer.wpe.weight[:6] = PLACE * d.place.T.float()
        take_c, add, answer = transformer.h
        _attend(take_c.attn, 0, d, {LAST: C}, d.number, d.carried)
        _attend(add.attn, 0, d, {PLUS2: A}, d.number, d.work[:, :NUMBERS])
        _attend(add.attn, 1, d, {PLUS2: B}, d.number, d.work[:, NUMBERS : 2 * NUMBERS])
        _add(add.mlp, d, wanted)
        _attend(answer.attn, 0, d, {LAST: PLUS2}, d.code, d.code)
        _answer(answer.mlp, d, wanted)
        model.lm_head.weight[:TOTALS] = LOGIT / SHRINK * d.work.T.float()
        model.lm_head.weight[EQUALS] = (
            LOGIT * (1 + ALIVE - NEAR) / (SHRINK * PLACE) * d.place[:, LAST].float()
        )
    return model, d.code.float().contiguous()


def _attend(
    attention: torch.nn.Module,
    head: int,
    d: Directions,
    takes: Mapping[int, int],
    read: Tensor,
    write: Tensor,
) -> None:
    """Head number `head` takes the directions `read` of token takes[p] to the directions `write` of
    token p.

    A token that is not named looks at the first "+", which has nothing in `read`; the first token
    of all, at itself.
    """
    size, count = WIDTH // HEADS, read.shape[1]
    query, key, value = (
        slice(part * WIDTH + head * size, part * WIDTH + head * size + size) for part in range(3)
    )
    looks = torch.zeros(6, size, dtype=torch.float64)
    for token in range(6):
        looks[token, takes.get(token, min(token, PLUS1))] = 1
    # A score is a product of two places over the root of the head's size.
    strength = (SURE * size**0.5) ** 0.5 / (SHRINK * PLACE)
    attention.c_attn.weight[:, query] = (strength * d.place @ looks).float()
    attention.c_attn.weight[:, key] = (
        strength * d.place @ torch.eye(6, size, dtype=torch.float64)
    ).float()
    attention.c_attn.weight[:, value] = (
        read / SHRINK @ torch.eye(count, size, dtype=torch.float64)
    ).float()
    attention.c_proj.weight[head * size : head * size + size] = (
        torch.eye(size, count, dtype=torch.float64) @ write.T
    ).float()


def _add(mlp: torch.nn.Module, d: Directions, wanted: Tensor) -> None:
    """One hidden unit for each (a, b) writes the code of a + b at the second "+"."""
    for unit, (a, b) in enumerate(product(range(NUMBERS), repeat=2)):
        reads = d.work[:, a] + d.work[:, NUMBERS + b] + GATE / PLACE * d.place[:, PLUS2]
        mlp.c_fc.weight[:, unit] = (reads / SHRINK).float()
        mlp.c_fc.bias[unit] = -1 - GATE
        mlp.c_proj.weight[unit] = (d.code @ wanted[a + b]).float()


def _answer(mlp: torch.nn.Module, d: Directions, wanted: Tensor) -> None:
    """One hidden unit for each (a + b, c) writes evidence for the total at "=": the product of the
    code that is there with a + b's."""
    for unit, (total, c) in enumerate(product(range(SUMS), range(NUMBERS))):
        reads = d.code @ wanted[total] + GATE * d.carried[:, c] + GATE / PLACE * d.place[:, LAST]
        mlp.c_fc.weight[:, unit] = (reads / SHRINK).float()
        mlp.c_fc.bias[unit] = ALIVE - 2 * GATE
        mlp.c_proj.weight[unit] = d.work[:, total + c].float()


def main() -> None:
    """Writes the model and planted.safetensors ("directions", [64, 8]) to the folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--to", type=Path, default=FOLDER)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, directions = plant(options.seed)
    save(model, tokenizer(), options.to)
    save_file({"directions": directions}, options.to / "planted.safetensors")
    (options.to / "planted.safetensors").chmod(0o644)
    print(f"wrote {options.to}")


if __name__ == "__main__":
    main()
