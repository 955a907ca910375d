"""Checks heads, queries, keys and values against the attention itself, independently of how they
were located.

1. On an input of one token (or of equal tokens) an attention outputs the value, in the part of the
   value's heads: exactly, or scaled by a factor that does not depend on it (an attention sink, a
   norm or a gate follows). Queries and keys change the scale only.
2. Flipping the sign of a query at token t changes token t only; flipping a key or a value changes
   tokens from t on; each changes the part of its own heads only, and does change it. Flipping half
   of a query changes the whole part of its head: one head is not several.

Flipped vectors sum to zero, so that a norm over all heads does not spread the change to others.
Half of the heads are flipped in each row, chosen so that every two heads differ in some row.

Invariants: a passed check proves for each column which head and part it belongs to, but not the
order of the columns within a head.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from raysearch.engine.networks.attention_probe import (
    HeadStates,
    LayerHooks,
    ProbedLayer,
    ProbeShape,
    probe,
)
from raysearch.engine.networks.hook_point import HookPoint
from raysearch.engine.networks.network import LanguageModel, Network
from raysearch.errors import ModelError

PARTS = ("query", "key", "value")
TOKENS = 6
"""Length of the longer input."""
AT = 1
"""Token at which a key or value is flipped: most tokens come after it, since not each of them need
attend to it. A query is flipped at the last token."""
SIZES = (1.0, 0.25, 4.0)
"""Scales of queries and keys, tried in turn: at one scale an attention may be too sharp or too
uniform to show a change."""
ATTEMPTS = 16
"""Attempts with other random numbers, until each head has changed something: in a sharp attention
most keys and values change nothing."""
MOST = 0.75
"""Smallest share of a head's columns that half a query must change: where two heads are taken for
one it changes half."""


@dataclass(frozen=True, slots=True)
class PatchedHeads:
    """A row of the longer input in which these heads of a part, or the first half of each, are
    sign-flipped."""

    part: str
    heads: Bool[Tensor, "head"]
    half: bool = False


@torch.inference_mode()
def wrong_heads(network: Network, hook_points: Mapping[str, LayerHooks]) -> str:
    """Returns one line that says which of head, query, key and value is not what its name says; ""
    if all are right.

    `hook_points`: the hook points of those that the network has, by layer. A head alone cannot be
    checked.
    """
    heads = hook_points.get("head", {})
    parts = {
        part: {at: hook_point for at, hook_point in hook_points[part].items() if at in heads}
        for part in PARTS
        if part in hook_points
    }
    heads = {
        at: hook_point for at, hook_point in heads.items() if any(at in of for of in parts.values())
    }
    try:
        for layer in heads:
            _check_sizes(
                layer, {p: of[layer] for p, of in (("head", heads), *parts.items()) if layer in of}
            )
        if heads:
            _check_values(network, heads, parts)
            _check_flips(network, heads, parts)
    except ModelError as e:
        return (
            f"{network.name}: {e}; its heads, queries, keys and values are not where they are "
            "looked for: name a module by its dotted path"
        )
    return ""


def _check_sizes(layer: int, hook_points: Mapping[str, HookPoint]) -> None:
    """Raises: ModelError for numbers or widths of heads that do not agree."""
    for one, other in (("query", "head"), ("key", "value")):
        if (
            one in hook_points
            and other in hook_points
            and hook_points[one].heads != hook_points[other].heads
        ):
            raise ModelError(
                f"layer {layer} has {hook_points[one].heads} heads of the {one}, "
                f"{hook_points[other].heads} of the {other}"
            )
    for one, other in (("query", "key"), ("value", "head")):
        widths = [
            hook_points[part].width // hook_points[part].heads
            for part in (one, other)
            if part in hook_points
        ]
        if len(set(widths)) > 1:
            raise ModelError(
                f"in layer {layer} a head of the {one} is {widths[0]} wide, a head of the {other} "
                f"{widths[1]}"
            )
    for part in ("key", "value"):
        if part in hook_points and hook_points["head"].heads % hook_points[part].heads:
            raise ModelError(
                f"{hook_points[part].heads} heads of the {part} cannot be shared by "
                f"{hook_points['head'].heads} heads"
            )


def _check_values(network: Network, heads: LayerHooks, parts: Mapping[str, LayerHooks]) -> None:
    """Runs four rows: a reference, and the same with other queries, other keys, other values.
    Raises: ModelError."""

    def write(layer: int, part: str, shape: ProbeShape) -> HeadStates:
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


def _in_proportion(seen: ProbedLayer, own: HeadStates, row: int) -> bool:
    """Returns whether heads output their value, exactly or each scaled as in the first row."""
    mix, value = seen.mix[[0, row]], own[[0, row]]
    if bool((mix - value).abs().max() <= seen.rounding * value.abs().max()):
        return True
    first, other = mix / value
    if value.shape[-1] == 1:
        return bool((first - other).abs().max() <= seen.rounding)
    return bool((torch.cosine_similarity(first, other, dim=-1) >= 1 - seen.rounding).all())


def _check_flips(network: Network, heads: LayerHooks, parts: Mapping[str, LayerHooks]) -> None:
    """Raises: ModelError, at once if something changes that must not, at the end if a head never
    changes anything."""
    causal = isinstance(network, LanguageModel)
    count = {
        part: max(hook_point.heads for hook_point in of.values())
        for part, of in parts.items()
        if of
    }
    flips = [PatchedHeads(part, chosen) for part, most in count.items() for chosen in _halves(most)]
    if "query" in count:
        flips.append(PatchedHeads("query", torch.ones(count["query"], dtype=torch.bool), half=True))
    still = {
        _Moves(flip.part, flip.half, layer, head)
        for flip in flips
        for layer, hook_point in parts[flip.part].items()
        for head in range(hook_point.heads)
        if not flip.half or hook_point.width > hook_point.heads
    }
    for attempt in range(ATTEMPTS):
        write = _Background(flips, attempt)
        for layer, seen in probe(network, TOKENS, 1 + len(flips), heads, parts, write).items():
            if seen.mix.shape[1] <= AT + 1:  # no token could attend to an earlier one
                return
            still -= set(_moved(layer, seen, flips, causal))
        if not still:
            return
    first = min(still)
    what = "half of it does not move the whole head" if first.half else "it moves nothing"
    raise ModelError(f"in layer {first.layer}, {first.part} head {first.head}: {what}")


@dataclass(frozen=True, slots=True, order=True)
class _Moves:
    """The fact that a head of a part changes the outputs that it should."""

    part: str
    half: bool
    layer: int
    head: int


def _moved(
    layer: int, seen: ProbedLayer, flips: Sequence[PatchedHeads], causal: bool
) -> Iterator[_Moves]:
    """Yields the heads that change what they should. Raises: ModelError if more changes."""
    scale = seen.mix[0].abs().amax((0, 2), keepdim=True).clamp(min=1e-12)
    moves = (seen.mix - seen.mix[:1]).abs() / scale
    moved = (moves > seen.rounding).any(-1)  # row, token, head
    tokens, heads = moved.shape[1:]
    for row, flip in enumerate(flips, 1):
        if flip.part not in seen.written:
            continue
        may, must = _reached(flip.part, tokens, causal)
        groups = seen.written[flip.part].shape[2]
        flipped = flip.heads[:groups]
        own = flipped.repeat_interleave(heads // groups)
        if bool(moved[row][:, ~own].any()):
            raise ModelError(f"in layer {layer} a {flip.part} moves other heads than its own")
        if bool(moved[row][~may].any()):
            raise ModelError(f"in layer {layer} a {flip.part} moves other tokens than it can")
        does = moved[row][must].reshape(-1, groups, heads // groups).any(0).all(-1)
        if flip.half:  # a lower threshold: a column that does not depend on it keeps all bits
            columns = moves[row, _flipped_at(flip.part, tokens)] > seen.rounding / 10
            does &= (columns.float().mean(-1) > MOST).reshape(groups, -1).all(-1)
        yield from (
            _Moves(flip.part, flip.half, layer, head)
            for head in (flipped & does).nonzero().flatten().tolist()
        )


def _reached(
    part: str, tokens: int, causal: bool
) -> tuple[Bool[Tensor, "token"], Bool[Tensor, "token"]]:
    """Returns at which tokens a flip may change something, and at which of them it must at some:
    a query at its own, a key or value at others, which may but need not attend to themselves."""
    number, at = torch.arange(tokens), _flipped_at(part, tokens)
    own = number == at
    if part == "query":
        return own, own
    others = number > at if causal else ~own
    return others | own, others


def _flipped_at(part: str, tokens: int) -> int:
    return tokens - 1 if part == "query" else AT


class _Background:
    """Writes equal values in all rows, except for the sign flips of each row."""

    def __init__(self, flips: Sequence[PatchedHeads], attempt: int) -> None:
        self._flips, self._attempt = flips, attempt

    def __call__(self, layer: int, part: str, shape: ProbeShape) -> HeadStates:
        rows, tokens, heads, width = shape
        made = torch.randn(
            (tokens, heads, width), generator=_generator(f"{part} {layer} {self._attempt}")
        )
        if width > 1:
            made = made - made.mean(-1, keepdim=True)
        size = 1.0 if part == "value" else SIZES[self._attempt % len(SIZES)]
        written = (made * size).repeat(rows, 1, 1, 1)
        for row, flip in enumerate(self._flips, 1):
            if flip.part == part and tokens > AT:
                written[
                    row,
                    _flipped_at(part, tokens),
                    flip.heads[:heads],
                    : width // 2 if flip.half else width,
                ] *= -1
        return written


def _halves(count: int) -> list[Bool[Tensor, "head"]]:
    """Returns sets of heads such that for every two heads one set holds the first only, another the
    second only; each head is in a set."""
    number = torch.arange(count)
    sets = [
        (number >> bit & 1) == side
        for bit in range(max(1, (count - 1).bit_length()))
        for side in (0, 1)
    ]
    return [chosen for chosen in sets if bool(chosen.any())]


def _of_heads(groups: Float[Tensor, "row token group d_head"], seen: ProbedLayer) -> HeadStates:
    """Repeats the values of each group of heads for every head of the group."""
    return groups.repeat_interleave(seen.mix.shape[2] // groups.shape[2], dim=2)


def _signed(shape: Sequence[int], seed: str) -> Float[Tensor, "head d_head"]:
    """Draws numbers of size 0.5 to 1.5 and random sign: ratios to them are well-conditioned."""
    generator = _generator(seed)
    return (0.5 + torch.rand(shape, generator=generator)) * torch.randint(
        0, 2, shape, generator=generator
    ).mul(2).sub(1)


def _generator(seed: str) -> torch.Generator:
    return torch.Generator().manual_seed(
        int.from_bytes(hashlib.sha256(seed.encode()).digest()[:7], "big")
    )
