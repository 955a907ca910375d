"""Heads, queries, keys and values held against the attention itself, whatever said where they are.

1. In an input of one token (or where all tokens have one value) an attention can only put out the
   value, in the part of the value's heads: verbatim, or in a proportion that does not hang on it (a
   sink, a norm or a gate comes after). Queries and keys change nothing but how much.
2. A query that is turned around at token t moves token t only; a key, or a value, tokens from t on;
   each in the part of its own heads only, and it does move them. Half a query, turned around, moves
   the whole part of its head: a head is not several.

What is turned around sums to zero, so that a norm over all heads brings none to move another. Half
of the heads are turned in a row, such that each two are told apart in some row.

Invariants: what passes says of each column which head it is of, and of what; not, of one head, in
which order its columns are.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from raysearch.engine.networks.attention_probe import Heads, Layers, ProbedLayer, Shape, probe
from raysearch.engine.networks.hook_point import HookPoint
from raysearch.engine.networks.network import LanguageModel, Network
from raysearch.errors import ModelError

PARTS = ("query", "key", "value")
TOKENS = 6
"""Of the longer input."""
AT = 1
"""Where a key or value is turned around: most tokens come after it, for not each of them need look
back at it. A query is at the last."""
SIZES = (1.0, 0.25, 4.0)
"""Of queries and keys, in turn: an attention may be too sharp or too even to show them at one size.
"""
ATTEMPTS = 16
"""With other numbers each time, until each has moved something: of a sharp attention most keys and
values move nothing."""
MOST = 0.75
"""Of a head's columns, what half a query moves at least: of two heads that are taken for one it
moves half."""


@dataclass(frozen=True, slots=True)
class PatchedHeads:
    """A row of the longer input: these heads of a part, or the first half of each, are turned
    around."""

    part: str
    heads: Bool[Tensor, "head"]
    half: bool = False


@torch.inference_mode()
def wrong_heads(network: Network, taps: Mapping[str, Layers]) -> str:
    """Says, in one line, which of head, query, key and value is not what it is called; nothing
    where all are.

    `taps`: those that the network has, by layer. Where there is only a head, there is nothing to
    hold it against.
    """
    heads = taps.get("head", {})
    parts = {
        part: {at: tap for at, tap in taps[part].items() if at in heads}
        for part in PARTS
        if part in taps
    }
    heads = {at: tap for at, tap in heads.items() if any(at in of for of in parts.values())}
    try:
        for layer in heads:
            _check_sizes(
                layer, {p: of[layer] for p, of in (("head", heads), *parts.items()) if layer in of}
            )
        if heads:
            _check_values(network, heads, parts)
            _check_turns(network, heads, parts)
    except ModelError as e:
        return (
            f"{network.name}: {e}; its heads, queries, keys and values are not where they are "
            f"looked for: name a module by its "
            "dotted path"
        )
    return ""


def _check_sizes(layer: int, taps: Mapping[str, HookPoint]) -> None:
    """Raises: ModelError for numbers and widths of heads that do not go together."""
    for one, other in (("query", "head"), ("key", "value")):
        if one in taps and other in taps and taps[one].heads != taps[other].heads:
            raise ModelError(
                f"layer {layer} has {taps[one].heads} heads of the {one}, {taps[other].heads} of "
                f"the {other}"
            )
    for one, other in (("query", "key"), ("value", "head")):
        widths = [taps[part].width // taps[part].heads for part in (one, other) if part in taps]
        if len(set(widths)) > 1:
            raise ModelError(
                f"in layer {layer} a head of the {one} is {widths[0]} wide, a head of the {other} "
                f"{widths[1]}"
            )
    for part in ("key", "value"):
        if part in taps and taps["head"].heads % taps[part].heads:
            raise ModelError(
                f"{taps[part].heads} heads of the {part} cannot be shared by {taps['head'].heads} "
                f"heads"
            )


def _check_values(network: Network, heads: Layers, parts: Mapping[str, Layers]) -> None:
    """Rows: one, and the same with other queries, with other keys, with other values. Raises:
    ModelError."""

    def write(layer: int, part: str, shape: Shape) -> Heads:
        rows, tokens, *of_one = shape
        first, other = (_signed(of_one, f"{part} {layer} {which}") for which in ("first", "other"))
        own_row = 1 + PARTS.index(part)
        written = torch.stack([other if row == own_row else first for row in range(rows)])
        return written[:, None].expand(-1, tokens, -1, -1)

    for layer, seen in probe(network, 1, 1 + len(PARTS), heads, parts, write).items():
        own = _of_heads(seen.written.get("value", seen.mix[:1].expand_as(seen.mix)), seen)
        for part in reversed(PARTS):
            if part in seen.written and not _in_proportion(seen, own, 1 + PARTS.index(part)):
                raise ModelError(
                    f"in layer {layer} a value written at the only token does not come out in the "
                    f"part of its own heads"
                    if part == "value"
                    else f"in layer {layer} a {part} written at the only token changes what comes "
                    f"out of its heads"
                )


def _in_proportion(seen: ProbedLayer, own: Heads, row: int) -> bool:
    """Whether heads put out their value, as it is or, each head by itself, in the proportions of
    the first row."""
    mix, value = seen.mix[[0, row]], own[[0, row]]
    if bool((mix - value).abs().max() <= seen.rounding * value.abs().max()):
        return True
    first, other = mix / value
    if value.shape[-1] == 1:
        return bool((first - other).abs().max() <= seen.rounding)
    return bool((torch.cosine_similarity(first, other, dim=-1) >= 1 - seen.rounding).all())


def _check_turns(network: Network, heads: Layers, parts: Mapping[str, Layers]) -> None:
    """Raises: ModelError, at once for what moves and must not, at the end for what never moves."""
    causal = isinstance(network, LanguageModel)
    count = {part: max(tap.heads for tap in of.values()) for part, of in parts.items() if of}
    turns = [PatchedHeads(part, chosen) for part, most in count.items() for chosen in _halves(most)]
    if "query" in count:
        turns.append(PatchedHeads("query", torch.ones(count["query"], dtype=torch.bool), half=True))
    still = {_Moves(turn.part, turn.half, layer, head) for turn in turns for layer, tap in parts[turn.part].items()
             for head in range(tap.heads) if not turn.half or tap.width > tap.heads}  # fmt: skip
    for attempt in range(ATTEMPTS):
        write = _Background(turns, attempt)
        for layer, seen in probe(network, TOKENS, 1 + len(turns), heads, parts, write).items():
            if seen.mix.shape[1] <= AT + 1:  # there is no token that could look back
                return
            still -= set(_moved(layer, seen, turns, causal))
        if not still:
            return
    first = min(still)
    what = "half of it does not move the whole head" if first.half else "it moves nothing"
    raise ModelError(f"in layer {first.layer}, {first.part} head {first.head}: {what}")


@dataclass(frozen=True, slots=True, order=True)
class _Moves:
    """That a head of a part moves what it should."""

    part: str
    half: bool
    layer: int
    head: int


def _moved(
    layer: int, seen: ProbedLayer, turns: Sequence[PatchedHeads], causal: bool
) -> Iterator[_Moves]:
    """What moves what it should. Raises: ModelError where something else is moved."""
    scale = seen.mix[0].abs().amax((0, 2), keepdim=True).clamp(min=1e-12)
    moves = (seen.mix - seen.mix[:1]).abs() / scale
    moved = (moves > seen.rounding).any(-1)  # row, token, head
    tokens, heads = moved.shape[1:]
    for row, turn in enumerate(turns, 1):
        if turn.part not in seen.written:
            continue
        at, groups = _turned_at(turn.part, tokens), seen.written[turn.part].shape[2]
        turned = turn.heads[:groups]
        own = turned.repeat_interleave(heads // groups)
        others = torch.arange(tokens) > at if causal else torch.arange(tokens) != at
        may = (
            torch.arange(tokens) == at
            if turn.part == "query"
            else others | (torch.arange(tokens) == at)
        )
        if bool(moved[row][:, ~own].any()):
            raise ModelError(f"in layer {layer} a {turn.part} moves other heads than its own")
        if bool(moved[row][~may].any()):
            raise ModelError(f"in layer {layer} a {turn.part} moves other tokens than it can")
        does = (
            moved[row][at if turn.part == "query" else others]
            .reshape(-1, groups, heads // groups)
            .any(0)
            .all(-1)
        )
        if (
            turn.half
        ):  # rounding counts for less: what does not move a column at all leaves all its bits
            does &= (
                ((moves[row, at] > seen.rounding / 10).float().mean(-1) > MOST)
                .reshape(groups, -1)
                .all(-1)
            )
        yield from (
            _Moves(turn.part, turn.half, layer, head)
            for head in (turned & does).nonzero().flatten().tolist()
        )


def _turned_at(part: str, tokens: int) -> int:
    return tokens - 1 if part == "query" else AT


class _Background:
    """In all rows the same, but for what its turn turns around."""

    def __init__(self, turns: Sequence[PatchedHeads], attempt: int) -> None:
        self._turns, self._attempt = turns, attempt

    def __call__(self, layer: int, part: str, shape: Shape) -> Heads:
        rows, tokens, heads, width = shape
        made = torch.randn(
            (tokens, heads, width), generator=_generator(f"{part} {layer} {self._attempt}")
        )
        if width > 1:
            made = made - made.mean(-1, keepdim=True)
        size = 1.0 if part == "value" else SIZES[self._attempt % len(SIZES)]
        written = (made * size).repeat(rows, 1, 1, 1)
        for row, turn in enumerate(self._turns, 1):
            if turn.part == part and tokens > AT:
                written[
                    row,
                    _turned_at(part, tokens),
                    turn.heads[:heads],
                    : width // 2 if turn.half else width,
                ] *= -1
        return written


def _halves(count: int) -> list[Bool[Tensor, "head"]]:
    """Sets of heads such that of each two one set holds the first alone, another the second alone;
    each head is in one."""
    number = torch.arange(count)
    sets = [
        (number >> bit & 1) == side
        for bit in range(max(1, (count - 1).bit_length()))
        for side in (0, 1)
    ]
    return [chosen for chosen in sets if bool(chosen.any())]


def _of_heads(groups: Heads, seen: ProbedLayer) -> Heads:
    """What belongs to each head, of what belongs to each group of heads."""
    return groups.repeat_interleave(seen.mix.shape[2] // groups.shape[2], dim=2)


def _signed(shape: Sequence[int], seed: str) -> Float[Tensor, "head d_head"]:
    """Between 0.5 and 1.5, of either sign: proportions to them are sound."""
    generator = _generator(seed)
    return (0.5 + torch.rand(shape, generator=generator)) * torch.randint(
        0, 2, shape, generator=generator
    ).mul(2).sub(1)


def _generator(seed: str) -> torch.Generator:
    return torch.Generator().manual_seed(
        int.from_bytes(hashlib.sha256(seed.encode()).digest()[:7], "big")
    )
