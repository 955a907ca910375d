"""Builds swaps for interventions on pairs.

The tokens of a swap depend on its pair and on the names of its positions, not on its layer or
subspace. So one row is built for each pair and position, and one for each intervention; the others
are arrays.

Invariants: the rows are those of `build_row`; what it refuses, or what is no swap, is left to the
caller.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import cast

import numpy as np

from raysearch.core.control_kinds import HOLDOUT_CONTROLS
from raysearch.core.events import Encoded, Ids, ModelInput
from raysearch.core.hypothesis import Intervention
from raysearch.engine.networks.components import Components
from raysearch.engine.networks.network import tokens_of
from raysearch.engine.networks.point import Point
from raysearch.engine.patching.rows import Indices, Patch, Row
from raysearch.engine.patching.swaps import PatchPlace, Place, Swaps

SwapShape = tuple[tuple[int, int], ...]
"""The numbers of tokens and of sources of each patch."""


@dataclass(frozen=True, slots=True)
class Spot:
    """The runs, choices (by their numbers) and tokens of a pair at which it is read and written, by
    patch and source.

    `same`: each patch has one source, which agrees with the base up to its last token.
    """

    base: int
    choice: int
    same: bool
    sources: tuple[Ids, ...]
    tokens: tuple[Ids, ...]
    source_tokens: tuple[tuple[Ids, ...], ...]

    @property
    def shape(self) -> SwapShape:
        return tuple((len(at), len(of)) for at, of in zip(self.tokens, self.sources, strict=True))


@dataclass(frozen=True, slots=True)
class SwapBuilder:
    """Builds swaps by `build`, and remembers what other layers and subspaces share. `share`:
    whether a common prefix of two inputs has the same activations in both; None for a network on
    tensors, all of whose inputs have one batch key."""

    build: Callable[[Encoded, Intervention], Row]
    hook_points: Components
    share: Callable[[ModelInput, ModelInput], bool] | None
    _numbers: dict[Row, int] = field(default_factory=dict)
    _runs: list[Row] = field(default_factory=list)
    _choices: dict[Ids, int] = field(default_factory=dict)
    _spots: dict[Hashable, dict[int, Spot]] = field(default_factory=dict)

    def swaps(
        self, interventions: Sequence[Intervention], pairs: Sequence[Encoded]
    ) -> tuple[Swaps | None, list[Intervention]]:
        """Returns the swaps of those interventions that are swaps on all pairs, and these
        interventions, in order. The rows are all interventions on the first pair, then on the
        second one, so that those which share runs are together."""
        found, keys, spots = self._found(interventions, pairs)
        if not found:
            return None, []
        places = list(dict.fromkeys(found.values()))
        number = {place: at for at, place in enumerate(places)}
        most = _most(places)
        columns = {key: _columns(spots[key], most) for key in {*keys.values()}}
        base, choice, same, source, tokens, source_tokens = (
            np.stack(parts, 1).reshape(len(pairs) * len(found), *parts[0].shape[1:])
            for parts in zip(*(columns[keys[of]] for of in found), strict=True)
        )
        place_of = np.tile([number[place] for place in found.values()], len(pairs))
        self._runs.extend(list(self._numbers)[len(self._runs) :])
        swaps = Swaps(
            *(self._runs, list(self._choices), places, place_of, base, source, choice),
            *(same.astype(bool), tokens, source_tokens),
        )
        return swaps, list(found)

    def _found(
        self, interventions: Sequence[Intervention], pairs: Sequence[Encoded]
    ) -> tuple[dict[Intervention, Place], dict[Intervention, Hashable], dict[Hashable, list[Spot]]]:
        """Returns the places of those interventions that are swaps on all pairs, their keys, which
        are equal where they have the same spots, and the spots of all pairs by key."""
        spots: dict[Hashable, list[Spot]] = {}
        shapes: dict[Hashable, set[SwapShape]] = {}
        found: dict[Intervention, Place] = {}
        keys: dict[Intervention, Hashable] = {}
        for intervention in interventions if pairs else ():
            swap = self._swap(intervention, pairs[0])
            if swap is None:
                continue
            row, place = swap
            key = _positions(intervention), self._last_tokens(row)
            if key not in spots:
                spots[key] = self._spots_on(intervention, pairs, key)
                shapes[key] = {spot.shape for spot in spots[key]}
            if shapes[key] == {tuple((patch.tokens, patch.sources) for patch in place)}:
                found[intervention], keys[intervention] = place, key
        return found, keys, spots

    def _swap(self, intervention: Intervention, pair: Encoded) -> tuple[Row, Place] | None:
        """Returns the row on a pair, with its place, if it is a swap; of a language model one
        within the blocks."""
        try:
            row = self.build(pair, intervention)
        except Exception:  # noqa: BLE001  the caller builds it again, row by row, and reports it
            return None
        is_inside = self.share is None or (
            all(point.layer is not None for point, _ in _points(row))
            and not any(last is not None for last in self._last_tokens(row))
        )
        place = place_of(row)
        return (row, place) if is_inside and place is not None else None

    def _last_tokens(self, row: Row) -> tuple[int | None, ...]:
        """Returns the last tokens of activations with other tokens than their input: where a
        position is "last", these say which token that is."""
        return tuple(self.hook_points.last(point, given) for point, given in _points(row))

    def _spots_on(
        self, intervention: Intervention, pairs: Sequence[Encoded], key: Hashable
    ) -> list[Spot]:
        """Returns the spots of all pairs; none if one of them cannot be built."""
        known = self._spots.setdefault(key, {})
        try:
            for pair in pairs:
                if pair.index not in known:
                    known[pair.index] = self._spot(self.build(pair, intervention))
        except Exception:  # noqa: BLE001  as above
            return []
        return [known[pair.index] for pair in pairs]

    def _spot(self, row: Row) -> Spot:
        same = self.share is not None and all(
            self._is_same(row.base, patch) for patch in row.patches
        )
        return _spot_of(row, self._numbers, self._choices, same)

    def _is_same(self, ours: ModelInput, patch: Patch) -> bool:
        assert isinstance(ours, tuple), "a language model is given token ids"
        assert self.share is not None
        last = max(patch.tokens)
        assert last < len(ours), "positions are of the base"
        sources = patch.sources
        assert all(max(of.tokens) < tokens_of(of.run.base) for of in sources), (
            "positions are of the source"
        )
        if len(sources) != 1:
            return False
        theirs = sources[0].run.base
        assert isinstance(theirs, tuple), "a language model is given token ids"
        return ours[: last + 1] == theirs[: last + 1] and self.share(ours, theirs)


def _points(row: Row) -> list[tuple[Point, ModelInput]]:
    """Returns the points that a row writes and reads, each with the input that it is of."""
    written = [(patch.point, row.base) for patch in row.patches]
    return [
        *written,
        *((of.point, of.run.base) for patch in row.patches for of in patch.sources),
    ]


def place_of(row: Row) -> Place | None:
    """Returns the place of a row; None if it cannot be written as arrays: it has no patch, patched
    sources, or a patch whose sources are read at several places."""
    if any(of.run.patches for patch in row.patches for of in patch.sources):
        return None
    found = [place for patch in row.patches if (place := PatchPlace.of(patch)) is not None]
    return tuple(found) if found and len(found) == len(row.patches) else None


def swaps_of(rows: Sequence[Row]) -> Swaps:
    """Returns rows as arrays. Each has a patch, and the sources of a patch are read at one place
    (`PatchPlace.of`)."""
    runs: dict[Row, int] = {}
    choices: dict[Ids, int] = {}
    places: dict[Place, int] = {}
    spots = [_spot_of(row, runs, choices, same=False) for row in rows]
    of_rows = [cast(Place, tuple(map(PatchPlace.of, row.patches))) for row in rows]
    place_of: Indices = np.array([places.setdefault(of, len(places)) for of in of_rows])
    most = _most(list(places))
    found: dict[int, tuple[Indices, ...]] = {}
    for place in range(len(places)):
        at = np.flatnonzero(place_of == place)
        columns = _columns([spots[row] for row in at], most)
        found |= zip(at.tolist(), zip(*columns, strict=True), strict=True)
    base, choice, same, source, tokens, source_tokens = map(
        np.array, zip(*(found[row] for row in range(len(rows))), strict=True)
    )
    return Swaps(
        *(list(runs), list(choices), list(places), place_of, base, source, choice),
        *(same.astype(bool), tokens, source_tokens),
    )


def _spot_of(row: Row, runs: dict[Row, int], choices: dict[Ids, int], same: bool) -> Spot:
    """Returns the spot of a row, whose runs and choices are numbered."""
    return Spot(
        runs.setdefault(Row(row.base), len(runs)),
        choices.setdefault(row.among, len(choices)),
        same,
        tuple(
            tuple(runs.setdefault(of.run, len(runs)) for of in patch.sources)
            for patch in row.patches
        ),
        tuple(patch.tokens for patch in row.patches),
        tuple(tuple(of.tokens for of in patch.sources) for patch in row.patches),
    )


def _most(places: Sequence[Place]) -> tuple[int, int, int]:
    """Returns the most patches of a place, and the most sources and tokens of a patch."""
    patches = [patch for place in places for patch in place]
    return (
        max(map(len, places)),
        max(1, *(patch.sources for patch in patches)),
        max(patch.tokens for patch in patches),
    )


def _positions(intervention: Intervention) -> Hashable:
    """Returns a key that is equal for interventions with the same spots. Units at one point may be
    refused for writing one token on some pairs, so that all of them count there."""
    units, control = intervention.units, intervention.control
    points = {(unit.site.layer, unit.site.component) for unit in units}
    return (
        tuple((u.site.position, (u.source_site or u.site).position, u.source) for u in units),
        control if control in HOLDOUT_CONTROLS else None,  # these read another source
        intervention.kind,
        units if len(points) < len(units) else (),
    )


def _columns(spots: Sequence[Spot], most: tuple[int, int, int]) -> tuple[Indices, ...]:
    """Returns the columns of spots of one shape, filled up to so many patches, sources and
    tokens."""
    patches, sources, tokens = most
    base, choice, same = np.array([(s.base, s.choice, s.same) for s in spots], dtype=np.int64).T
    first = np.array([spot.tokens[0][0] for spot in spots])
    source = np.full((len(spots), patches, sources), -1)
    at = np.tile(first[:, None, None], (1, patches, tokens))
    theirs = np.tile(first[:, None, None, None], (1, patches, sources, tokens))
    for number, (count, read) in enumerate(spots[0].shape):
        at[:, number, :count] = [spot.tokens[number] for spot in spots]
        at[:, number, count:] = at[:, number, :1]
        theirs[:, number, 0] = at[:, number]
        if read:
            source[:, number, :read] = [spot.sources[number] for spot in spots]
            own = np.array([spot.source_tokens[number] for spot in spots])
            theirs[:, number, :read, :count] = own
            theirs[:, number, :read, count:] = own[..., :1]
    return base, choice, same, source, at, theirs
