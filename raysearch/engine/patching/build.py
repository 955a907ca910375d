"""Builds the row that the network runs for an intervention on a pair.

Invariants: all units of an intervention act at once, in the base's run; impossible requests are
refused before anything runs.
"""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from raysearch.causal import LAST
from raysearch.core.events import Encoded, Ids
from raysearch.core.hypothesis import Intervention, Site, Unit
from raysearch.core.option_names import OTHER_BASES
from raysearch.engine.networks.components import Components, HookPoint
from raysearch.engine.networks.module_names import PER_HEAD
from raysearch.engine.networks.network import ModelInput
from raysearch.engine.networks.point import Point
from raysearch.engine.patching.operations import FORMULAS, Operation
from raysearch.engine.patching.rows import FeatureIndices, Patch, Row, Source
from raysearch.engine.patching.subspace_operations import Featurizers
from raysearch.errors import JobError, ModelError, NotYetError, PairsError, PositionError


def build_row(
    pair: Encoded,
    intervention: Intervention,
    hook_points: Components,
    featurizers: Featurizers | None = None,
    source_pair: Encoded | None = None,
    others: Sequence[Encoded] = (),
) -> Row:
    """Returns the row to run for `intervention` on `pair`. `featurizers`: needed for interventions
    on subspaces.

    `source_pair`: the pair whose sources replace the pair's own; in a self-swap the base is its own
    source. `others`: pairs whose bases a mean or resample ablation reads.

    Raises: ModelError, PositionError, PairsError for a site or a source that does not exist;
    JobError for units that do not fit each other; NotYetError for what this version does not
    support.
    """
    if intervention.kind not in FORMULAS:
        raise JobError(f"{intervention.kind!r} is no operation; it may be {', '.join(FORMULAS)}")
    if not intervention.units:
        raise JobError("an intervention without units changes nothing; name at least one unit")
    if intervention.kind in OTHER_BASES and not others:
        raise JobError(
            f"a {intervention.kind} ablation takes from other inputs, and there are none here; use "
            f"zero, or a search"
        )
    inputs = _source_inputs(pair, intervention, source_pair)
    patches = tuple(
        _patch(pair, unit, intervention, hook_points, featurizers, inputs, others)
        for unit in intervention.units
    )
    _check_apart(pair, patches)
    return Row(pair.base, patches, pair.choices)


def other_source(pair: Encoded, pairs: Sequence[Encoded], intervention: Intervention) -> Encoded:
    """Returns a pair, random but fixed, whose sources differ from those of `pair` and fit in their
    place.

    Raises: PairsError if there is none.
    """
    start = random.Random(f"{pair.index}.other_source").randrange(len(pairs))
    for other in (*pairs[start:], *pairs[:start]):
        if other.sources != pair.sources and _fits(other, pair, intervention):
            return other
    raise PairsError(
        f"pair {pair.index}: no other pair has sources that fit in the place of its own"
    )


def ablation_sources(
    pair: Encoded, pairs: Sequence[Encoded], intervention: Intervention
) -> list[Encoded]:
    """Returns the pairs whose bases an ablation takes from: for a resample one that is drawn for
    `pair`, for a mean the same ones whatever the pair is, so that their runs are shared.

    Each has as many tokens as `pair` at every unit.

    Raises: PairsError where there is none.
    """
    count = OTHER_BASES.get(intervention.kind, 0)
    if not count:
        return []
    positions = [unit.site.position for unit in intervention.units]

    def lengths(one: Encoded) -> list[int]:
        return [len(one.base_positions.get(position, ())) for position in positions]

    alone = count == 1
    seed = f"{pair.index}.{intervention.kind}" if alone else intervention.kind
    wanted = lengths(pair)
    found: dict[object, Encoded] = {}
    for at in _drawn_order(seed, len(pairs)):
        other = pairs[at]
        if lengths(other) == wanted and not (alone and other.base == pair.base):
            found.setdefault(other.base, other)
        if len(found) == count:
            break
    if not found:
        places = ", ".join(f"{p} ({n})" for p, n in zip(positions, wanted, strict=True))
        raise PairsError(
            f"pair {pair.index}: no other base has as many tokens at {places}, as operation: "
            f"{intervention.kind} needs"
        )
    return list(found.values())


def _drawn_order(seed: str, count: int) -> Iterator[int]:
    """Yields 0..count-1 in a random order, a function of the seed: a shuffle (Fisher and Yates)
    that draws no more than is asked of it, since every row of an ablation asks for a few."""
    rng = random.Random(seed)
    moved: dict[int, int] = {}
    for last in range(count - 1, -1, -1):
        at = rng.randrange(last + 1)
        yield moved.get(at, at)
        moved[at] = moved.get(last, last)


def _fits(other: Encoded, pair: Encoded, intervention: Intervention) -> bool:
    """Returns whether its sources have equally many tokens at the units' positions."""
    for unit in intervention.units:
        position = (unit.source_site or unit.site).position
        for name, at in pair.source_positions.items():
            if len(other.source_positions.get(name, {}).get(position, ())) != len(
                at.get(position, ())
            ):
                return False
    return True


def _source_inputs(
    pair: Encoded, intervention: Intervention, other: Encoded | None
) -> Mapping[str, tuple[ModelInput, Mapping[str, Ids]]]:
    """Returns the input and the positions of each source, by name."""
    if intervention.control_kind.base_is_source:
        return dict.fromkeys(pair.sources, (pair.base, pair.base_positions))
    chosen = pair if other is None else other
    return {name: (chosen.sources[name], chosen.source_positions[name]) for name in pair.sources}


def _patch(
    pair: Encoded,
    unit: Unit,
    intervention: Intervention,
    hook_points: Components,
    featurizers: Featurizers | None,
    inputs: Mapping[str, tuple[ModelInput, Mapping[str, Ids]]],
    others: Sequence[Encoded],
) -> Patch:
    point, features = _place(unit.site, unit, hook_points)
    tokens = _tokens(
        pair, pair.base_positions, unit.site.position, "base", hook_points.last(point, pair.base)
    )
    kind: Operation = FORMULAS[intervention.kind]()
    if featurizers is not None:
        kind = featurizers.kind_of(
            intervention, unit, len(tokens) * _width(features, hook_points.at(point))
        )
    elif unit.subspace.featurizer != "identity":
        raise JobError(
            f"{unit.subspace.featurizer} is no plain subspace; there are no featurizers at hand"
        )
    patch = Patch(point, tokens, (), kind, features)
    if not kind.reads_source:
        return patch
    if intervention.is_ablation:
        return replace(patch, sources=_others(others, unit, patch, hook_points))
    return replace(patch, sources=(_source_of(pair, unit, patch, hook_points, inputs),))


def _others(
    others: Sequence[Encoded], unit: Unit, patch: Patch, hook_points: Components
) -> tuple[Source, ...]:
    """Returns the bases of other pairs as sources of the same point, for an ablation."""
    sources = []
    for other in others:
        last = hook_points.last(patch.point, other.base)
        at = _tokens(other, other.base_positions, unit.site.position, "base", last)
        sources.append(Source(Row(other.base), patch.point, at, patch.features))
    return tuple(sources)


def _source_of(
    pair: Encoded,
    unit: Unit,
    patch: Patch,
    hook_points: Components,
    inputs: Mapping[str, tuple[ModelInput, Mapping[str, Ids]]],
) -> Source:
    """Returns the source of an interchange. Raises: JobError for other widths than the patch's;
    PositionError for another number of tokens."""
    name = _source(pair, unit)
    source_site = unit.source_site or unit.site
    their_point, their_features = _place(source_site, unit, hook_points)
    ours, theirs = (
        _width(f, hook_points.at(p))
        for p, f in ((patch.point, patch.features), (their_point, their_features))
    )
    if ours != theirs:
        raise JobError(
            f"{unit.site.description} has {ours} features, {source_site.description} {theirs}; "
            f"take from a site of the same width"
        )
    run, positions = inputs[name]
    source_tokens = _tokens(
        pair, positions, source_site.position, name, hook_points.last(their_point, run)
    )
    if len(patch.tokens) != len(source_tokens):
        raise PositionError(
            f"pair {pair.index}: position {unit.site.position!r} has {len(patch.tokens)} tokens in "
            f"the base, {source_site.position!r} has {len(source_tokens)} "
            f"in {name}; a unit needs as many tokens in both"
        )
    return Source(Row(run), their_point, source_tokens, their_features)


def _place(site: Site, unit: Unit, hook_points: Components) -> tuple[Point, FeatureIndices]:
    """Returns the point and the features of a site. Raises: ModelError for a component, layer or
    head that does not exist; JobError for coordinates out of range."""
    point = Point(site.layer, site.component)
    hook_point = hook_points.at(point)
    features: FeatureIndices = None
    width = hook_point.width
    if site.head is not None:
        if site.component not in PER_HEAD:
            raise JobError(
                f"{site.component} has no heads; name a head of {', '.join(PER_HEAD)}, or none"
            )
        if not 0 <= site.head < hook_point.heads:
            raise ModelError(
                f"{site.head} is no head of {replace(site, head=None).description}; it has "
                f"0..{hook_point.heads - 1}"
            )
        width = hook_point.width // hook_point.heads
        features = range(site.head * width, (site.head + 1) * width)
    chosen, count = unit.subspace.coordinates, unit.subspace.features
    if chosen is not None and unit.subspace.featurizer == "identity":
        wrong = next((c for c in chosen if not 0 <= c < width), None)
        if wrong is not None or not chosen or len(set(chosen)) < len(chosen):
            got = (
                "no coordinate"
                if not chosen
                else f"coordinate {wrong}"
                if wrong is not None
                else "a coordinate twice"
            )
            raise JobError(
                f"{site.description}: {got}; it has 0..{width - 1}, each to be named once"
            )
        start = features.start if isinstance(features, range) else 0
        features = tuple(start + c for c in chosen)
    elif unit.subspace.featurizer == "identity" and count not in (None, width):
        raise NotYetError(
            f"{count} of {width} features are not supported yet; use all (full), or name "
            f"coordinates"
        )
    return point, features


def _tokens(
    pair: Encoded, positions: Mapping[str, Ids], position: str, of: str, last: int | None
) -> Ids:
    """Returns the tokens of a position. `last`: last token of the activation, if its tokens differ
    from the input's."""
    if position not in positions:
        raise PositionError(
            f"pair {pair.index}: the {of} has no position {position!r}; it has "
            f"{', '.join(positions)}"
        )
    if last is None:
        return positions[position]
    at = (last,) if position == LAST else positions[position]
    if max(at) > last:
        raise PositionError(
            f"pair {pair.index}: position {position!r} of the {of} is token {max(at)}, and this "
            f"component has "
            f"{'1 token' if last == 0 else f'{last + 1} tokens'} (from 0); name last, or a token "
            f"that it has"
        )
    return at


def _source(pair: Encoded, unit: Unit) -> str:
    if unit.source is None and len(pair.sources) != 1:
        names = ", ".join(pair.sources) or "none"
        raise PairsError(
            f"pair {pair.index}: has {len(pair.sources)} sources ({names}); a unit must say which "
            f"it takes from (source)"
        )
    name = unit.source if unit.source is not None else next(iter(pair.sources))
    if name not in pair.sources:
        raise PairsError(
            f"pair {pair.index}: has no source {name!r}; it has {', '.join(pair.sources)}"
        )
    return name


def _check_apart(pair: Encoded, patches: Sequence[Patch]) -> None:
    """Raises: PositionError if two units write to one place, unless they write the same value from
    the same place."""
    for i, one in enumerate(patches):
        for other in patches[:i]:
            shared = set(one.tokens) & set(other.tokens) if one.point == other.point else set()
            if shared and _meet(one.features, other.features):
                at = min(shared)
                if not one.kind.reads_source or any(
                    _source_of_token(one, t) != _source_of_token(other, t) for t in shared
                ):
                    where = "" if one.point.layer is None else f" in layer {one.point.layer}"
                    raise PositionError(
                        f"pair {pair.index}: two units write token {at} of "
                        f"{one.point.component}{where}, each its own; name units that do "
                        "not overlap"
                    )


def _meet(one: FeatureIndices, other: FeatureIndices) -> bool:
    return one is None or other is None or not set(one).isdisjoint(other)


def _source_of_token(patch: Patch, token: int) -> tuple[object, ...]:
    at = patch.tokens.index(token)
    sources = tuple((s.run, s.point, s.tokens[at], s.features) for s in patch.sources)
    return sources, patch.features, patch.kind


def _width(features: FeatureIndices, hook_point: HookPoint) -> int:
    return hook_point.width if features is None else len(features)
