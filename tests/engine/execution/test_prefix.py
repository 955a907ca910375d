"""One copy of a prefix for all rows of a base: outputs, gradients, what is written, where it is
refused."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaConfig

from raysearch.engine.execution import attention_kernels, partial_attention
from raysearch.engine.execution.partial_attention import RowsByBase, attend
from raysearch.engine.execution.replay import Replay
from raysearch.engine.execution.shared_prefix_attention import SharedLayers, is_causal
from raysearch.engine.patching.rows import Indices, Row, swap
from raysearch.engine.patching.swaps import Swaps
from tests.engine.worlds import World, model_from, shared_world, world_of

SHARING = ("llama", "gpt2", "gpt_neox", "opt", "qwen2", "qwen3", "olmo2", "phi3", "mixtral")


@st.composite
def attention(draw: st.DrawFn) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Query, key and value of rows; keys and values of bases; the base of each row."""
    groups, rows, bases = (draw(st.integers(1, most)) for most in (3, 9, 4))
    heads = groups * draw(st.integers(1, 3))
    tokens, before = draw(st.integers(1, 6)), draw(st.integers(1, 9))
    make = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    of_rows = [torch.randn(rows, n, tokens, 8, generator=make) for n in (heads, groups, groups)]
    of_bases = [torch.randn(bases, groups, before, 8, generator=make) for _ in range(2)]
    return of_rows, of_bases, torch.randint(bases, (rows,), generator=make)


def plain_attention(
    of_rows: Sequence[Tensor], of_bases: Sequence[Tensor], base: Tensor, scale: float
) -> Tensor:
    """Attention over the concatenated keys, with every score, in float64."""
    query, (key, value) = of_rows[0].double(), of_rows[1:]
    keys, values = (
        torch.cat((prefix[base], own), 2).repeat_interleave(query.shape[1] // own.shape[1], 1)
        for prefix, own in zip(of_bases, (key, value), strict=True)
    )
    tokens, before = query.shape[2], of_bases[0].shape[2]
    later = torch.ones(tokens, before + tokens, dtype=torch.bool).triu(before + 1)
    scores = (query @ keys.double().transpose(-1, -2) * scale).masked_fill(later, -torch.inf)
    return scores.softmax(-1) @ values.double()


@settings(max_examples=60, deadline=None)
@given(given=attention(), scale=st.floats(0.1, 1.0))
def test_attention_in_two_parts_and_its_gradients_equal_attention_over_all_keys(
    given: tuple[list[Tensor], list[Tensor], Tensor], scale: float
) -> None:
    of_rows, of_bases, base = given
    for tensor in of_rows:
        tensor.requires_grad_()
    rows = RowsByBase.of(base.numpy(), len(of_bases[0]))
    out = attend(*of_rows, (of_bases[0], of_bases[1]), rows, scale)
    wanted = plain_attention(of_rows, of_bases, base, scale)
    weights = torch.linspace(-1, 1, out.numel()).view_as(out)
    ours = torch.autograd.grad((out * weights).sum(), of_rows)
    theirs = torch.autograd.grad((wanted * weights.double()).sum(), of_rows)
    assert (out - wanted).abs().max() <= 2e-6
    assert all((one - two).abs().max() <= 1e-5 for one, two in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    ("groups", "tokens", "before"), [(2, 7, 0), (1, 33, 0), (2, 128, 0), (2, 1, 9)], ids=str
)
def test_heads_of_a_group_attend_at_once_as_one_by_one(
    groups: int, tokens: int, before: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float32 bit for bit, but for gradients of keys and values, which are sums over the heads.
    `before`: own keys of tokens that were decided, as where a row goes on."""
    make = torch.Generator().manual_seed(0)

    def drawn(heads: int, count: int) -> Tensor:
        return torch.randn(3, heads, count, 16, generator=make).to(dtype)

    query, grad = (drawn(3 * groups, tokens) for _ in range(2))
    key, value = (drawn(groups, before + tokens) for _ in range(2))
    causal = not before

    def found() -> tuple[Tensor, ...]:
        out, total = partial_attention._own_part(query, key, value, causal, 0.3)
        given = grad, query, key, value, out, total, causal, 0.3
        return out, total, *partial_attention._own_backward(*given)

    kernels, part = [], attention_kernels.part
    for module in (partial_attention, attention_kernels):
        monkeypatch.setattr(module, "part", lambda *given: (kernels.append(1), part(*given))[1])
    attention_kernels.takes_groups(query.device, dtype)  # tries once
    kernels.clear()
    at_once = found()
    assert len(kernels) == 1
    monkeypatch.setattr(partial_attention, "AT_ONCE", 0)
    by_groups = found()
    assert len(kernels) == 2
    monkeypatch.setattr(partial_attention, "takes_groups", lambda *_: False)
    one_by_one = found()
    assert len(kernels) == 2 + 3
    assert all(torch.equal(a, b) for a, b in zip(by_groups, one_by_one, strict=True))
    if dtype == torch.float32:
        assert all(torch.equal(a, b) for a, b in zip(at_once[:3], one_by_one[:3], strict=True))
    off = torch.finfo(dtype).eps * 16
    assert all(torch.allclose(a, b, off, off) for a, b in zip(at_once, one_by_one, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_a_kernel_is_trusted_with_heads_that_share_a_group_where_it_gives_what_each_head_does(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = attention_kernels.part

    def refuses(query: Tensor, key: Tensor, *more: Any) -> tuple[Tensor, Tensor]:
        if query.shape[1] != key.shape[1]:
            raise RuntimeError("heads and groups differ")
        return part(query, key, *more)

    def mixes(query: Tensor, key: Tensor, *more: Any) -> tuple[Tensor, Tensor]:
        out, total = part(query, key, *more)
        return out if query.shape[1] == key.shape[1] else out.flip(1), total

    taken = attention_kernels.takes_groups.__wrapped__
    assert taken(torch.device("cpu"), dtype)
    for wrong in (refuses, mixes):
        monkeypatch.setattr(attention_kernels, "part", wrong)
        assert not taken(torch.device("cpu"), dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    ("seed", "prefix", "width", "heads", "groups", "tokens"),
    [(1, 300, 128, 8, 2, 1), (2, 600, 64, 9, 3, 3), (0, 100, 64, 9, 3, 4), (0, 70, 64, 4, 4, 30)],
)
def test_in_half_precision_no_bit_of_a_row_depends_on_how_many_rows_its_base_has(
    seed: int, prefix: int, width: int, heads: int, groups: int, tokens: int, dtype: torch.dtype
) -> None:
    """Kernels sum in another order for more queries, and round the end of a tensor in another
    way: rarely to another number, so that seeds are those where an AMX processor did. Elsewhere
    this cannot fail; the next test can."""
    make = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, width, generator=make).to(dtype)

    query, key, value = (drawn(96, n, tokens) for n in (heads, groups, groups))
    of_bases = drawn(3, groups, prefix), drawn(3, groups, prefix)

    def attended(bases: list[int]) -> Tensor:
        rows = RowsByBase.of(np.array(bases), 3, query, groups)
        assert rows.rows_per_product is not None
        of_rows = (of[: len(bases)] for of in (query, key, value))
        return attend(*of_rows, of_bases, rows, width**-0.5)

    many = attended([0] * 96)
    for count in (1, 3, 6, 12, 18, 36):
        assert torch.equal(attended([0] * count), many[:count]), count
        others = [1 + at % 2 for at in range(count)]
        assert torch.equal(attended([0, *others])[0], many[0]), count


@pytest.mark.parametrize(
    ("heads", "groups", "tokens"), [(4, 4, 1), (8, 2, 1), (6, 2, 3), (8, 2, 9)]
)
@pytest.mark.parametrize("gradient", [False, True])
def test_in_half_precision_each_product_with_a_prefix_has_equally_many_queries(
    heads: int, groups: int, tokens: int, gradient: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the number of rows and bases; unless gradients flow, where padding would cost."""
    part, queries = attention_kernels.part, set()

    def counted(query: Tensor, key: Tensor, *more: Any, **named: Any) -> tuple[Tensor, Tensor]:
        if key.shape[2] == 40:
            queries.add(query.shape[2])
        return part(query, key, *more, **named)

    monkeypatch.setattr(partial_attention, "part", counted)
    of_bases = [torch.randn(5, groups, 40, 8).bfloat16() for _ in range(2)]
    for bases in ([0], [0, 0, 1], [0] * 50, [0, 1, 2, 3, 4], [3] * 7 + [1] * 40):
        of_rows = [
            torch.randn(len(bases), n, tokens, 8).bfloat16() for n in (heads, groups, groups)
        ]
        of_rows[0].requires_grad_(gradient)
        rows = RowsByBase.of(np.array(bases), 5, of_rows[0], groups)
        attend(*of_rows, (of_bases[0], of_bases[1]), rows, 0.3)
    least = heads // groups * tokens
    assert len(queries) > 1 if gradient else queries == {max(least, 16 // least * least)}


def test_bases_are_sorted_unless_each_row_has_its_own_and_they_are_not_all_neighbours() -> None:
    """What is stored of neighbours is not copied; and else no row is brought into another order."""

    def bases_of(*base: int) -> tuple[Indices, Indices]:
        each = np.zeros(len(base), dtype=np.int64)
        by_patch = each[:, None, None]
        swaps = Swaps(
            runs=(),
            choices=(),
            places=(),
            place=each,
            base=np.array(base),
            source=by_patch,
            choice=each,
            same=each > 0,
            tokens=by_patch,
            source_tokens=by_patch[..., None],
        )
        return swaps.distinct_bases()

    used, base = bases_of(5, 2, 5, 9)
    assert (used.tolist(), base.tolist()) == ([2, 5, 9], [1, 0, 1, 2])
    used, base = bases_of(3, 1, 2)
    assert (used.tolist(), base.tolist()) == ([1, 2, 3], [2, 0, 1])
    used, base = bases_of(8, 3, 5, 0)
    assert (used.tolist(), base.tolist()) == ([8, 3, 5, 0], [0, 1, 2, 3])
    rows = RowsByBase.of(base[:3], 4)  # of which the last one has not entered
    assert (rows.place, rows.bases, rows.order.flatten().tolist()) == (None, None, [0, 1, 2])


@settings(max_examples=20, deadline=None)
@given(given=attention(), causal=st.booleans())
def test_the_formulas_for_devices_without_a_kernel_equal_the_kernel(
    given: tuple[list[Tensor], list[Tensor], Tensor], causal: bool
) -> None:
    (query, key, value), _, _ = given
    query = query[:, : key.shape[1]].contiguous()
    out, total = attention_kernels.part(query, key, value, causal, 0.3)
    by_formula = attention_kernels.part_by_formula(query, key, value, causal, 0.3)
    assert (out - by_formula[0]).abs().max() <= 2e-6
    assert (total - by_formula[1]).abs().max() <= 2e-6
    grads = torch.ones_like(out), query, key, value, out, total, causal, 0.3
    for one, two in zip(
        attention_kernels.part_backward(*grads),
        attention_kernels.gradients_by_formula(*grads),
        strict=True,
    ):
        assert (one - two).abs().max() <= 1e-5


def test_the_formula_of_gradients_takes_the_heads_of_a_group_at_once() -> None:
    """So it is on a device without a kernel of it, where each head by itself costs a dozen."""
    make = torch.Generator().manual_seed(0)
    query, grad = (torch.randn(3, 6, 5, 16, generator=make) for _ in range(2))
    key, value = (torch.randn(3, 2, 5, 16, generator=make) for _ in range(2))
    out, total = partial_attention._own_part(query, key, value, True, 0.3)
    wanted = partial_attention._own_backward(grad, query, key, value, out, total, True, 0.3)
    folded = [partial_attention._by_group(of, key) for of in (grad, query, out, total)]
    found = attention_kernels.gradients_by_formula(
        *(folded[0], folded[1], key, value, folded[2], folded[3][..., 0], False, 0.3),
        partial_attention._mask(query, key, True),
    )
    for one, two in zip(wanted, found, strict=True):
        assert (one - two.reshape(one.shape)).abs().max() <= 1e-5


@given(bases=st.lists(st.integers(0, 5), min_size=1, max_size=40))
def test_rows_are_dealt_to_at_most_twice_as_many_pieces_as_there_are_bases(
    bases: list[int],
) -> None:
    rows = RowsByBase.of(np.array(bases), 6)
    of_piece = range(6) if rows.bases is None else rows.bases.tolist()
    place = range(len(bases)) if rows.place is None else rows.place.tolist()
    flat = rows.order.flatten().tolist()
    assert [flat[at] for at in place] == list(range(len(bases)))
    assert [of_piece[at // rows.order.shape[1]] for at in place] == bases
    assert len(rows.order) <= 2 * len(set(bases))


class _Written(TorchDispatchMode):
    """Counts the numbers that are written to new memory as keys or values of so many `tokens`."""

    def __init__(self, *tokens: int) -> None:
        super().__init__()
        self.tokens, self.numbers = tokens, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor) and out.ndim == 4 and out.shape[-2] in self.tokens:
            known = {t.untyped_storage().data_ptr() for t in args if isinstance(t, Tensor)}
            self.numbers += out.numel() * (out.untyped_storage().data_ptr() not in known)
        return out


def _written(world: World, rows: Sequence[Row], shares: bool, before: int) -> int:
    path = world.replayed()
    path._replay = Replay(world.network, world.taps, shares_prefix=shares)
    with torch.inference_mode():
        path.logits(rows)  # runs and templates are made
        with _Written(before, len(rows[0].base)) as written:
            path.logits(rows)
    return written.numbers


def test_what_a_wave_writes_of_a_prefix_does_not_grow_with_its_rows() -> None:
    world = shared_world("llama")
    base, before = tuple(3 + at % 30 for at in range(24)), 22

    def rows(count: int) -> list[Row]:
        others = [(*base[:20], 3 + at, *base[21:]) for at in range(count)]
        return [swap(base, other, 1, (before,)) for other in others]

    few, many = (_written(world, rows(count), True, before) for count in (4, 16))
    copied = [_written(world, rows(count), False, before) for count in (4, 16)]
    assert few == many
    assert (
        copied[1] - copied[0] >= 12 * before * 3 * 2 * 32
    )  # rows, tokens, layers, keys and values


@pytest.mark.parametrize("family", SHARING)
def test_models_that_go_through_the_interface_share_in_every_layer(family: str) -> None:
    world = shared_world(family)
    assert SharedLayers.of(world.network).at(8) == frozenset(range(world.layers))


@pytest.mark.parametrize("family", ["bloom", "mpt", "gemma2", "gpt_oss", "falcon"])
def test_models_with_other_terms_in_their_scores_get_copies(family: str) -> None:
    assert not SharedLayers.of(shared_world(family).network).at(8)


def test_a_window_that_is_full_gets_copies() -> None:
    shared = SharedLayers.of(shared_world("gemma3").network)
    assert shared.at(4) == {0, 1, 2}
    assert shared.at(5) == {1}


def test_a_model_attends_in_its_own_way_again_whatever_happened() -> None:
    world = world_of(model_from(LlamaConfig(vocab_size=40, hidden_size=32, intermediate_size=32,
        num_hidden_layers=2, num_attention_heads=4)))  # fmt: skip
    config, asked = world.model.config, [swap((5, 6, 7, 8), (5, 9, 7, 8), 0, (2,))]
    path = world.replayed()
    path.logits(asked)

    def breaks(*_: object) -> None:
        raise KeyboardInterrupt

    handle = world.model.model.layers[1].mlp.register_forward_hook(breaks)
    with pytest.raises(KeyboardInterrupt):
        path.logits(asked)
    handle.remove()
    assert config._attn_implementation == "sdpa"
    assert (path.logits(asked)[0] - world.oracle(asked[0])).abs().max() <= 1e-5


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32])
def test_masks_that_hide_more_than_later_tokens_are_seen(dtype: torch.dtype) -> None:
    seen = torch.ones(3, 8, dtype=torch.bool).tril(5)[None, None]

    def mask(seen: Tensor) -> Tensor:
        return seen if dtype == torch.bool else torch.zeros(seen.shape).masked_fill(~seen, -1e30)

    assert is_causal(mask(seen), 5, 8)
    window = seen & torch.ones_like(seen).triu(2)
    assert not is_causal(mask(window), 5, 8)
    assert not is_causal(mask(seen) + 0.5, 5, 8)
    assert not is_causal("other", 5, 8)
