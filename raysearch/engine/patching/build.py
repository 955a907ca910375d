"""From what a search asks, an intervention on a pair, to the row that the network runs.

Invariants: all units of an intervention act at once, in the base's run; what can be known to be
impossible is said before anything runs.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

from raysearch.causal import LAST
from raysearch.core.events import Encoded, Ids
from raysearch.core.hypothesis import Intervention, Site, Unit
from raysearch.engine.networks.component_names import PER_HEAD
from raysearch.engine.networks.components import Components, HookPoint
from raysearch.engine.networks.network import ModelInput
from raysearch.engine.networks.point import Point
from raysearch.engine.patching.featurized import Featurizers
from raysearch.engine.patching.operations import KINDS, Operation
from raysearch.engine.patching.rows import FeatureIndices, Patch, Row, Source
from raysearch.errors import JobError, ModelError, NotYetError, PairsError, PositionError

MEAN_OF = 32
"""Inputs that a mean ablation takes the mean over, fewer where a run has fewer that fit."""

TRIED = 6
"""Pairs of which trial rows are made."""


def build_row(
    pair: Encoded,
    intervention: Intervention,
    taps: Components,
    featurizers: Featurizers | None = None,
    lender: Encoded | None = None,
    others: Sequence[Encoded] = (),
) -> Row:
    """What to run for `intervention` on `pair`. `featurizers`: at hand, where it may be of
    subspaces.

    `lender`: whose source lends in the place of the pair's own; the pair itself, as its own source,
    where that is a self-swap. `others`: the pairs whose bases a mean or resample ablation takes
    from.

    Raises: ModelError, PositionError, PairsError for a site or a source not there; JobError for
    units that do not fit each other; NotYetError for what this version does not do.
    """
    if intervention.kind not in KINDS:
        raise JobError(
            f"{intervention.kind!r} is no kind of intervention; it may be {', '.join(KINDS)}"
        )
    if not intervention.units:
        raise JobError("an intervention without units changes nothing; name at least one unit")
    if intervention.kind in ("mean", "resample") and not others:
        raise JobError(
            f"a {intervention.kind} ablation takes from other inputs, and there are none here; use "
            f"zero, or a search"
        )
    lenders = _lenders(pair, intervention, lender)
    patches = tuple(
        _patch(pair, unit, intervention, taps, featurizers, lenders, others)
        for unit in intervention.units
    )
    _check_apart(pair, patches)
    return Row(pair.base, patches, pair.choices)


def trials(
    pairs: Sequence[Encoded],
    taps: Components,
    layers: int,
    components: Sequence[str],
    seed: int = 0,
    tried: int = TRIED,
) -> list[Row]:
    """Rows to hold a fast path against the oracle on: on `tried` random pairs, each component at a
    random position.

    The residual in two random layers, where it can be patched, so that rows have company that joins
    at another and not all are patched in the last; a random head of a per-head component; and all
    of these at once, where answers have several tokens with an answer begun too. Of several sources
    a random one lends.
    """
    rng = random.Random(f"{seed}.trials")
    rows: list[Row] = []
    for pair in (rng.choice(pairs) for _ in range(tried if pairs else 0)):
        if not pair.sources:
            rows.append(Row(pair.base))
            continue
        lender = (
            rng.choice(sorted(pair.sources)) if len(pair.sources) > 1 else next(iter(pair.sources))
        )
        lent = pair.source_positions[lender]
        position = rng.choice(
            sorted(p for p, at in pair.base_positions.items() if len(lent.get(p, ())) == len(at))
        )
        sites = [Site(at, "residual", position) for at in rng.sample(range(layers), min(2, layers))]
        sites = sites if _has_residual(taps) else []
        for component in components:
            found = taps.of(component)
            layer = rng.choice(list(found))
            head = rng.randrange(found[layer].heads) if found[layer].heads else None
            sites.append(
                Site(
                    layer,
                    component,
                    _had(taps, pair, lender, Point(layer, component), position),
                    head,
                )
            )
        units = [Unit(site, source=lender) for site in dict.fromkeys(sites)]
        asked = [Intervention((unit,)) for unit in units]
        rows += [
            build_row(pair, intervention, taps)
            for intervention in (*asked, Intervention(tuple(units)))
        ]
        if pair.longest > 1:
            rows.append(
                rows[-1].after(next(iter(pair.counterfactual.values()), pair.answers["base"])[0])
            )
    return rows


def _has_residual(taps: Components) -> bool:
    """A network on tensors may have blocks whose activations are of another shape, and be asked
    about other modules alone."""
    try:
        return bool(taps.of("residual"))
    except ModelError:
        return False


def _had(taps: Components, pair: Encoded, lender: str, point: Point, position: str) -> str:
    """`position`, or "last" where the activation at `point` is of fewer tokens."""
    sides = (pair.base, pair.base_positions), (pair.sources[lender], pair.source_positions[lender])
    lasts = [(taps.last(point, given), positions[position]) for given, positions in sides]
    return position if all(last is None or max(at) <= last for last, at in lasts) else LAST


def other_source(pair: Encoded, pairs: Sequence[Encoded], intervention: Intervention) -> Encoded:
    """A pair, chosen at random but once and for all, whose sources are others than those of `pair`
    and fit in their place.

    Raises: PairsError where there is none.
    """
    start = random.Random(f"{pair.index}.other_source").randrange(len(pairs))
    for other in (*pairs[start:], *pairs[:start]):
        if other.sources != pair.sources and _fits(other, pair, intervention):
            return other
    raise PairsError(
        f"pair {pair.index}: no other pair has sources that could lend in the place of its own"
    )


def ablation_sources(
    pair: Encoded, pairs: Sequence[Encoded], intervention: Intervention
) -> list[Encoded]:
    """Returns the pairs whose bases an ablation takes from: for a resample one that is drawn for
    `pair`, for a mean the same `MEAN_OF` whatever the pair is, so that their runs are shared.

    Each has as many tokens as `pair` at every unit.

    Raises: PairsError where there is none.
    """
    if intervention.kind not in ("mean", "resample"):
        return []
    positions = [unit.site.position for unit in intervention.units]

    def lengths(one: Encoded) -> list[int]:
        return [len(one.base_positions.get(position, ())) for position in positions]

    alone = intervention.kind == "resample"
    named = f"{pair.index}.resample" if alone else "mean"
    order = random.Random(named).sample(range(len(pairs)), len(pairs))
    wanted = lengths(pair)
    found: dict[object, Encoded] = {}
    for at in order:
        other = pairs[at]
        if lengths(other) == wanted and not (alone and other.base == pair.base):
            found.setdefault(other.base, other)
        if len(found) == (1 if alone else MEAN_OF):
            break
    if not found:
        raise PairsError(
            f"pair {pair.index}: no other base has as many tokens at {', '.join(positions)}, as "
            f"operation: {intervention.kind} needs"
        )
    return list(found.values())


def _fits(other: Encoded, pair: Encoded, intervention: Intervention) -> bool:
    """Whether its sources have as many tokens where units are lent."""
    for unit in intervention.units:
        position = (unit.source_site or unit.site).position
        for name, at in pair.source_positions.items():
            if len(other.source_positions.get(name, {}).get(position, ())) != len(
                at.get(position, ())
            ):
                return False
    return True


def _lenders(
    pair: Encoded, intervention: Intervention, lender: Encoded | None
) -> Mapping[str, tuple[ModelInput, Mapping[str, Ids]]]:
    """By the name of a source, the input that lends and its positions."""
    if intervention.control == "self_swap":
        return dict.fromkeys(pair.sources, (pair.base, pair.base_positions))
    lent = pair if lender is None else lender
    return {name: (lent.sources[name], lent.source_positions[name]) for name in pair.sources}


def _patch(
    pair: Encoded,
    unit: Unit,
    intervention: Intervention,
    taps: Components,
    featurizers: Featurizers | None,
    lenders: Mapping[str, tuple[ModelInput, Mapping[str, Ids]]],
    others: Sequence[Encoded],
) -> Patch:
    point, features = _place(unit.site, unit, taps)
    tokens = _tokens(
        pair, pair.base_positions, unit.site.position, "base", taps.last(point, pair.base)
    )
    kind: Operation = KINDS[intervention.kind]()
    if featurizers is not None:
        kind = featurizers.kind_of(
            intervention, unit, len(tokens) * _width(features, taps.at(point))
        )
    elif unit.subspace.featurizer != "identity":
        raise JobError(
            f"{unit.subspace.featurizer} is no plain subspace; there are no featurizers at hand"
        )
    if kind.lent != "source":
        return Patch(point, tokens, (), kind, features)
    if intervention.is_ablation:
        position, sources = unit.site.position, []
        for other in others:
            last = taps.last(point, other.base)
            at = _tokens(other, other.base_positions, position, "base", last)
            sources.append(Source(Row(other.base), point, at, features))
        return Patch(point, tokens, tuple(sources), kind, features)
    name = _source(pair, unit)
    lender = unit.source_site or unit.site
    their_point, their_features = _place(lender, unit, taps)
    ours, theirs = (
        _width(f, taps.at(p)) for p, f in ((point, features), (their_point, their_features))
    )
    if ours != theirs:
        raise JobError(
            f"{unit.site.description} has {ours} features, {lender.description} {theirs}; take from a site "
            f"of the same width"
        )
    run, positions = lenders[name]
    lent = _tokens(pair, positions, lender.position, name, taps.last(their_point, run))
    if len(tokens) != len(lent):
        raise PositionError(
            f"pair {pair.index}: position {unit.site.position!r} has {len(tokens)} tokens in the "
            f"base, {lender.position!r} has {len(lent)} "
            f"in {name}; a unit needs as many tokens in both"
        )
    return Patch(
        point, tokens, (Source(Row(run), their_point, lent, their_features),), kind, features
    )


def _place(site: Site, unit: Unit, taps: Components) -> tuple[Point, FeatureIndices]:
    """Raises: ModelError for a component, layer or head not there; JobError for coordinates out of
    range."""
    point = Point(site.layer, site.component)
    tap = taps.at(point)
    features: FeatureIndices = None
    width = tap.width
    if site.head is not None:
        if site.component not in PER_HEAD:
            raise JobError(
                f"{site.component} has no heads; name a head of {', '.join(PER_HEAD)}, or none"
            )
        if not 0 <= site.head < tap.heads:
            raise ModelError(
                f"{site.head} is no head of {replace(site, head=None).description}; it has "
                f"0..{tap.heads - 1}"
            )
        width = tap.width // tap.heads
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
    """`last`: of the activation, where it has other tokens than the input."""
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
            f"lends (source)"
        )
    name = unit.source if unit.source is not None else next(iter(pair.sources))
    if name not in pair.sources:
        raise PairsError(
            f"pair {pair.index}: has no source {name!r}; it has {', '.join(pair.sources)}"
        )
    return name


def _check_apart(pair: Encoded, patches: Sequence[Patch]) -> None:
    """Raises: PositionError where two units write one place, unless they write the same from the
    same place."""
    for i, one in enumerate(patches):
        for other in patches[:i]:
            shared = set(one.tokens) & set(other.tokens) if one.point == other.point else set()
            if shared and _meet(one.features, other.features):
                at = min(shared)
                if one.kind.lent != "source" or any(
                    _lent_at(one, t) != _lent_at(other, t) for t in shared
                ):
                    where = "" if one.point.layer is None else f" in layer {one.point.layer}"
                    raise PositionError(
                        f"pair {pair.index}: two units write token {at} of "
                        f"{one.point.component}{where}, each its own; name units that do "
                        "not overlap"
                    )


def _meet(one: FeatureIndices, other: FeatureIndices) -> bool:
    return one is None or other is None or not set(one).isdisjoint(other)


def _lent_at(patch: Patch, token: int) -> tuple[object, ...]:
    at = patch.tokens.index(token)
    sources = tuple((s.run, s.point, s.tokens[at], s.features) for s in patch.sources)
    return sources, patch.features, patch.kind


def _width(features: FeatureIndices, tap: HookPoint) -> int:
    return tap.width if features is None else len(features)
