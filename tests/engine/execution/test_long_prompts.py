"""What a row costs after a long prompt: multiply-adds and bytes of keys and values, counted on a
small model, equal to a formula in the model's shape at several sizes; and what the formula says of
the shape of Llama-3.1-8B."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaConfig

from raysearch.engine.patching.rows import Row, swap
from tests.engine.worlds import World, model_from, world_of


@dataclass(frozen=True)
class Shape:
    """A Llama's shape, with `size` bytes for a number."""

    layers: int
    width: int
    heads: int
    groups: int
    head: int
    mlp: int
    vocab: int
    size: int = 4


@dataclass(frozen=True)
class Work:
    """A wave of rows that run `suffix` tokens of `prompt` through `above` layers."""

    rows: int
    bases: int
    prompt: int
    suffix: int
    above: int


@dataclass
class Cost:
    """Multiply-adds; bytes read of weights, read and written of keys and values."""

    products: int = 0
    attention: int = 0
    weights: int = 0
    read: int = 0
    written: int = 0

    @property
    def multiply_adds(self) -> int:
        return self.products + self.attention

    @property
    def bytes(self) -> int:
        return self.weights + self.read + self.written


def formula(shape: Shape, work: Work, at_once: bool) -> Cost:
    """`at_once`: whether the heads of a group read a row's own keys together, as on a CPU."""
    linear = 2 * shape.width * (shape.heads + shape.groups) * shape.head
    linear += 3 * shape.width * shape.mlp
    head = shape.width * shape.vocab
    tokens, before = work.rows * work.suffix, work.prompt - work.suffix
    of_keys = shape.groups * shape.head * 2 * shape.size * work.above
    own_reads = 1 if at_once else shape.heads // shape.groups
    return Cost(
        products=tokens * work.above * linear + work.rows * head,
        attention=work.above * tokens * shape.heads * 2 * shape.head * (before + work.suffix),
        weights=(work.above * linear + head) * shape.size,
        read=of_keys * (work.bases * before + tokens * own_reads),
        written=0,
    )


class Counted(TorchDispatchMode):
    """Counts the cost of a wave; keys and values of the prefix are those of `before` tokens."""

    def __init__(self, before: int) -> None:
        super().__init__()
        self.before, self.cost, self._seen = before, Cost(), set[int]()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        name, cost = func.overloadpacket.__name__, self.cost
        if name in ("linear", "mm", "matmul"):
            one, other = args[:2]
            cost.products += one.numel() * (out.numel() // (one.numel() // one.shape[-1]))
            if other.untyped_storage().data_ptr() not in self._seen:
                self._seen.add(other.untyped_storage().data_ptr())
                cost.weights += other.nbytes
        if "flash_attention" in name:
            query, key, value = args[:3]
            cost.attention += query.numel() * key.shape[2] * 2
            cost.read += key.nbytes + value.nbytes
        if isinstance(out, Tensor) and out.ndim >= 4 and out.shape[-2] == self.before:
            known = {t.untyped_storage().data_ptr() for t in args if isinstance(t, Tensor)}
            cost.written += out.nbytes * (out.untyped_storage().data_ptr() not in known)
        return out


SMALL = Shape(layers=5, width=32, heads=4, groups=2, head=8, mlp=48, vocab=60)


def small_world(shape: Shape) -> World:
    config = LlamaConfig(
        vocab_size=shape.vocab, hidden_size=shape.width, num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads, num_key_value_heads=shape.groups,
        intermediate_size=shape.mlp, max_position_embeddings=128, initializer_range=0.4,
    )  # fmt: skip
    return world_of(model_from(config))


def counted(world: World, work: Work) -> Cost:
    layers = world.layers
    rows: list[Row] = []
    for at in range(work.rows):
        base = tuple(3 + (at % work.bases * 7 + t) % 50 for t in range(work.prompt))
        source = (*base[:-1], 3 + at)
        start = work.prompt - work.suffix
        rows.append(swap(base, source, layers - 1 - work.above, (start,)))
    path = world.replayed(most=work.rows)
    with torch.inference_mode():
        path.logits(rows)  # runs and templates are made
        with Counted(work.prompt - work.suffix) as seen:
            path.logits(rows)
    return seen.cost


@pytest.mark.parametrize("rows", [16, 48])
@pytest.mark.parametrize("bases", [1, 2])
@pytest.mark.parametrize(("prompt", "suffix", "above"), [(21, 1, 3), (61, 1, 4), (61, 3, 4)])
def test_a_wave_costs_what_the_formula_says(
    rows: int, bases: int, prompt: int, suffix: int, above: int
) -> None:
    work = Work(rows, bases, prompt, suffix, above)
    assert counted(small_world(SMALL), work) == formula(SMALL, work, at_once=True)


LLAMA_8B = Shape(32, 4096, 32, 8, 128, 14336, 128_256, size=2)


@pytest.mark.parametrize("rows", [16, 64, 256, 512])
def test_in_an_8b_shape_a_row_after_2000_tokens_costs_less_than_twice_one_after_100(
    rows: int,
) -> None:
    """Arithmetic on the formula that the test above holds the engine to: 16 rows a base, patched at
    the last token in the first layer, or in the middle; captures aside."""
    for above in (31, 16):
        short, long = (
            formula(LLAMA_8B, Work(rows, rows // 16, prompt, 1, above), at_once=False)
            for prompt in (100, 2000)
        )
        assert long.multiply_adds < 1.1 * short.multiply_adds
        assert long.bytes < 2 * short.bytes
