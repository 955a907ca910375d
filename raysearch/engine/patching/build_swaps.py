"""Builds swaps for interventions on pairs.

The tokens of a swap depend on its pair and on the names of its positions, not on its layer or
subspace. So one row is built for each pair and position, and one for each intervention; the others
are arrays.

Invariants: the rows are those of `build_row`; what it refuses, or what is no swap, is left to the
caller.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np

from raysearch.core.events import Encoded, Ids, ModelInput
from raysearch.core.hypothesis import Intervention
from raysearch.engine.networks.components import Components
from raysearch.engine.patching.rows import Patch, Row, Source
from raysearch.engine.patching.swaps import Indices, Place, Swaps

_SOURCE_CONTROLS = ("self_swap", "random_source")
"""Controls whose source is not the pair's own."""


@dataclass(frozen=True, slots=True)
class Spot:
    """The runs, choices (by their numbers) and tokens of a pair at which it is read and written.

    `same`: base and source agree up to the last of the tokens.
    """

    base: int
    source: int
    choice: int
    same: bool
    tokens: Ids
    source_tokens: Ids


@dataclass(frozen=True, slots=True)
class SwapBuilder:
    """Builds swaps by `build`, and remembers what other layers and subspaces share. `share`:
    whether a common prefix of two inputs has the same activations in both."""

    build: Callable[[Encoded, Intervention], Row]
    hook_points: Components
    share: Callable[[ModelInput, ModelInput], bool]
    _numbers: dict[Row, int] = field(default_factory=dict)
    _choices: dict[Ids, int] = field(default_factory=dict)
    _spots: dict[Hashable, dict[int, Spot]] = field(default_factory=dict)

    def swaps(
        self, interventions: Sequence[Intervention], pairs: Sequence[Encoded]
    ) -> tuple[Swaps | None, list[Intervention]]:
        """Returns the swaps of those interventions that are swaps on all pairs, and these
        interventions, in order. The rows are all interventions on the first pair, then on the
        second one, so that those which share runs are together."""
        spots: dict[Hashable, list[Spot]] = {}
        tokens_at: dict[Hashable, set[int]] = {}
        found: dict[Intervention, Place] = {}
        for intervention in interventions if pairs else ():
            place = self._place(intervention, pairs[0])
            if place is None:
                continue
            key = _positions(intervention)
            if key not in spots:
                spots[key] = self._spots_on(intervention, pairs)
                tokens_at[key] = {len(spot.tokens) for spot in spots[key]}
            if tokens_at[key] == {place.tokens}:
                found[intervention] = place
        if not found:
            return None, []
        places = list(dict.fromkeys(found.values()))
        number = {place: at for at, place in enumerate(places)}
        most = max(place.tokens for place in places)
        columns = {key: _columns(spots[key], most) for key in {*map(_positions, found)}}
        base, source, choice, same, tokens, source_tokens = (
            np.stack(parts, 1).reshape(len(pairs) * len(found), *parts[0].shape[1:])
            for parts in zip(*(columns[_positions(of)] for of in found), strict=True)
        )
        place_of = np.tile([number[place] for place in found.values()], len(pairs))
        runs, choices = list(self._numbers), list(self._choices)
        swaps = Swaps(
            *(runs, choices, places, place_of, base, source, choice),
            *(same.astype(bool), tokens, source_tokens),
        )
        return swaps, list(found)

    def _place(self, intervention: Intervention, pair: Encoded) -> Place | None:
        if len(intervention.units) != 1 or intervention.is_ablation:
            return None
        try:
            row = self.build(pair, intervention)
        except Exception:  # noqa: BLE001  the caller builds it again, row by row, and reports it
            return None
        patch, source = _only(row)
        points = ((patch.point, row.base), (source.point, source.run.base))
        if any(at.layer is None or self.hook_points.last(at, on) is not None for at, on in points):
            return None
        return Place(
            *(patch.point, patch.features, patch.kind, source.point, source.features),
            len(patch.tokens),
        )

    def _spots_on(self, intervention: Intervention, pairs: Sequence[Encoded]) -> list[Spot]:
        """Returns the spots of all pairs; none if one of them cannot be built."""
        known = self._spots.setdefault(_positions(intervention), {})
        try:
            for pair in pairs:
                if pair.index not in known:
                    known[pair.index] = self._spot(self.build(pair, intervention))
        except Exception:  # noqa: BLE001  as above
            return []
        return [known[pair.index] for pair in pairs]

    def _spot(self, row: Row) -> Spot:
        patch, source = _only(row)
        last = max(patch.tokens)
        ours, theirs = row.base, source.run.base
        assert isinstance(ours, tuple), "a language model is given token ids"
        assert isinstance(theirs, tuple), "a language model is given token ids"
        same = ours[: last + 1] == theirs[: last + 1] and self.share(ours, theirs)
        assert last < len(ours), "positions are of the base"
        assert max(source.tokens) < len(theirs), "positions are of the source"
        choice = self._choices.setdefault(row.among, len(self._choices))
        base, run = self._number(Row(ours)), self._number(source.run)
        return Spot(base, run, choice, same, patch.tokens, source.tokens)

    def _number(self, run: Row) -> int:
        return self._numbers.setdefault(run, len(self._numbers))


def _only(row: Row) -> tuple[Patch, Source]:
    """Returns the only patch of a row and its only source."""
    (patch,) = row.patches
    (source,) = patch.sources
    return patch, source


def _positions(intervention: Intervention) -> Hashable:
    """Returns a key that is equal for interventions with the same spots."""
    (unit,) = intervention.units
    control = intervention.control if intervention.control in _SOURCE_CONTROLS else None
    return unit.site.position, (unit.source_site or unit.site).position, unit.source, control


def _columns(spots: Sequence[Spot], most: int) -> tuple[Indices, ...]:
    """Returns the columns of spots of equally many tokens. Tokens are filled up to `most`."""
    numbers = [(spot.base, spot.source, spot.choice, spot.same) for spot in spots]
    tokens, source_tokens = (
        _filled(np.array(of), most)
        for of in ([spot.tokens for spot in spots], [spot.source_tokens for spot in spots])
    )
    return *np.array(numbers, dtype=np.int64).T, tokens, source_tokens


def _filled(tokens: Indices, most: int) -> Indices:
    first = np.repeat(tokens[:, :1], most - tokens.shape[1], axis=1)
    return np.concatenate((tokens, first), axis=1)
