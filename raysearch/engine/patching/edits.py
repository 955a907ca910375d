"""From rows to hooks: what all the rows of a batch have patched at one place, as one edit.

Invariants: patches of one row act in their order; each row is written at its own columns of the
batch and nowhere else; patches alike (same point, kind, features, number of tokens) are computed as
one.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from raysearch.engine.networks.components import Components, HookPoint
from raysearch.engine.networks.hooks import Edit, HookCall, HookSide
from raysearch.engine.networks.point import Point
from raysearch.engine.patching.operations import Operation
from raysearch.engine.patching.rows import FeatureIndices, Patch, Row, Source
from raysearch.errors import PositionError

Look = Callable[[Source], Float[Tensor, "token width"]]
"""The component that a source lends, at all tokens of its run."""

Replacements = Sequence[Float[Tensor, "token feature"]]
"""Of each row, what its only patch is lent, in the place of what its source has. Gradients may flow
to it."""


@dataclass(slots=True)
class Writes:
    """Patches alike, to be done at once. `rows`, `columns`: where each token stands in the batch."""

    kind: Operation
    features: FeatureIndices
    tokens: int
    rows: list[int] = field(default_factory=list)
    columns: list[int] = field(default_factory=list)
    lent: list[Tensor] = field(default_factory=list)


def edits_of(
    rows: Sequence[Row],
    pads: Sequence[int],
    taps: Components,
    look: Look,
    lent: Replacements | None = None,
) -> list[tuple[HookPoint, Edit]]:
    """Of each module and side that is patched, the tap and the edit that does all that the rows
    have patched there.

    `pads`: where the first token of each row stands.
    """
    places = _places(enumerate(rows), taps).values()
    return [
        (tap, _edit(_round_by_round(of_rows, pads, taps, look, lent))) for tap, of_rows in places
    ]


def _edit(rounds: Sequence[tuple[HookPoint, Writes]]) -> Edit:
    """Does the writes one after the other, to a copy of the activation."""
    wheres = [(torch.tensor(w.rows), torch.tensor(w.columns)) for _, w in rounds]
    first_column = min(int(columns.min()) for _, columns in wheres)
    last_column = max(int(columns.max()) for _, columns in wheres)

    def edit(activation: Tensor, moment: HookCall) -> Tensor | None:
        end = moment.first + activation.shape[1]
        if moment.last and last_column >= end:
            raise PositionError(
                f"an activation of {end} tokens has no token {last_column} (from 0, padding "
                f"counted); name one it has"
            )
        if first_column >= end or last_column < moment.first:
            return None
        edited = activation.clone()
        for (tap, writes), (rows, columns) in zip(rounds, wheres, strict=True):
            _write(edited, tap, writes, rows, columns - moment.first)
        return edited

    return edit


def _write(edited: Tensor, tap: HookPoint, writes: Writes, rows: Tensor, columns: Tensor) -> None:
    """Where only some of a unit's tokens are run now (a recurrent network's steps), each token is
    an item of its own."""
    device, tokens = edited.device, writes.tokens
    now = (columns >= 0) & (columns < edited.shape[1])
    lent = torch.stack(writes.lent).to(device=device, dtype=edited.dtype) if writes.lent else None
    if not bool(now.all()):
        rows, columns, tokens = rows[now], columns[now], 1
        lent = None if lent is None else lent.flatten(0, 1)[now.to(device), None]
        if not len(rows):
            return
    where = rows.to(device), columns.to(device)
    vector = tap_columns(tap, writes.features)
    base = _items(edited[where], vector, tokens)
    new = writes.kind.forward(base, lent).flatten(0, 1)
    if vector is None:
        edited[where] = new
    else:
        edited[where[0][:, None], where[1][:, None], vector.to(device)] = new


def tap_columns(tap: HookPoint, features: FeatureIndices) -> Tensor | None:
    """Which columns of the module's activation these features of the component are. None: all."""
    if features is None:
        return tap.columns
    chosen = torch.tensor(list(features))
    return chosen if tap.columns is None else tap.columns[chosen]


def lent_to(patch: Patch, look: Look) -> Tensor | None:
    """Returns what replaces the activation, of shape (token, feature): that of the patch's source,
    or the mean over several. None where nothing comes from a source.

    Raises: PositionError where a source has fewer tokens than it should lend.
    """
    if patch.kind.lent != "source":
        return None
    return (
        torch.stack([_taken(source, look(source)) for source in patch.sources]).mean(0)
        if len(patch.sources) > 1
        else _taken(patch.sources[0], look(patch.sources[0]))
    )


def _taken(source: Source, seen: Float[Tensor, "token width"]) -> Float[Tensor, "token feature"]:
    if max(source.tokens) >= len(seen):
        raise PositionError(
            f"the source has {len(seen)} tokens; token {max(source.tokens)} (from 0) is to be "
            f"lent; name one that it has"
        )
    tokens = seen[list(source.tokens)]
    return tokens if source.features is None else tokens[:, list(source.features)]


def _items(
    tokens: Float[Tensor, "flat width"], vector: Tensor | None, count: int
) -> Float[Tensor, "item token feature"]:
    chosen = tokens if vector is None else tokens[:, vector.to(tokens.device)]
    return chosen.reshape(-1, count, chosen.shape[-1])


_Numbered = list[tuple[int, list[Patch]]]


def _places(
    rows: Iterable[tuple[int, Row]], taps: Components
) -> dict[tuple[int, HookSide], tuple[HookPoint, _Numbered]]:
    """The rows that are patched at each place, with their patches there, in the order of the rows."""
    places: dict[tuple[int, HookSide], tuple[HookPoint, _Numbered]] = {}
    for at, row in rows:
        own: dict[tuple[int, HookSide], list[Patch]] = {}
        for patch in row.patches:
            tap = taps.at(patch.point)
            place = id(tap.module), tap.side
            own.setdefault(place, []).append(patch)
            places.setdefault(place, (tap, []))
        for place, patches in own.items():
            places[place][1].append((at, patches))
    return places


def _round_by_round(
    rows: _Numbered, pads: Sequence[int], taps: Components, look: Look, lent: Replacements | None
) -> list[tuple[HookPoint, Writes]]:
    """First the first patch of every row, then the second, ...; in each round, those alike
    together."""
    rounds: dict[tuple[int, Point, Operation, FeatureIndices, int], tuple[HookPoint, Writes]] = {}
    for at, patches in rows:
        for turn, patch in enumerate(patches):
            tap = taps.at(patch.point)
            alike = turn, patch.point, patch.kind, patch.features, len(patch.tokens)
            _, writes = rounds.setdefault(
                alike, (tap, Writes(patch.kind, patch.features, len(patch.tokens)))
            )
            writes.rows += [at] * len(patch.tokens)
            writes.columns += [pads[at] + token for token in patch.tokens]
            own = lent_to(patch, look) if lent is None else lent[at]
            if own is not None:
                writes.lent.append(own)
    return [rounds[alike] for alike in sorted(rounds, key=lambda alike: alike[0])]


def sources_of(rows: Iterable[Row]) -> Mapping[Row, set[Point]]:
    """The runs that the rows lend from, and the points at which."""
    wanted: dict[Row, set[Point]] = {}
    for row in rows:
        for patch in row.patches:
            for source in patch.sources:
                wanted.setdefault(source.run, set()).add(source.point)
    return wanted
