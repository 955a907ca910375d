"""Chooses random rows, on which fast executors are compared with the oracle.

Invariants: the rows are a function of the pairs, the components and the seed.
"""

import random
from collections.abc import Sequence

from raysearch.causal import LAST
from raysearch.core.events import Encoded
from raysearch.core.hypothesis import Intervention, Site, Unit
from raysearch.engine.networks.components import Components
from raysearch.engine.networks.point import Point
from raysearch.engine.patching.build import build_row
from raysearch.engine.patching.rows import Row
from raysearch.errors import ModelError

TRIED = 6
"""Number of pairs from which rows are made."""


def random_rows(
    pairs: Sequence[Encoded],
    hook_points: Components,
    layers: int,
    components: Sequence[str],
    seed: int = 0,
    tried: int = TRIED,
) -> list[Row]:
    """Returns rows on which fast executors are compared with the oracle: on `tried` random pairs,
    each component at a random position.

    The residual is patched in two random layers, if possible, so that rows of a batch enter at
    different layers; a per-head component at a random head; and all of these at once, with an
    answer begun if answers have several tokens. One of several sources is chosen at random.
    """
    rng = random.Random(f"{seed}.trials")
    rows: list[Row] = []
    for pair in (rng.choice(pairs) for _ in range(tried if pairs else 0)):
        if not pair.sources:
            rows.append(Row(pair.base))
            continue
        units = _random_units(rng, pair, hook_points, layers, components)
        interventions = [Intervention((unit,)) for unit in units]
        rows += [
            build_row(pair, intervention, hook_points)
            for intervention in (*interventions, Intervention(tuple(units)))
        ]
        if pair.longest > 1:
            rows.append(
                rows[-1].after(next(iter(pair.counterfactual.values()), pair.answers["base"])[0])
            )
    return rows


def _random_units(
    rng: random.Random,
    pair: Encoded,
    hook_points: Components,
    layers: int,
    components: Sequence[str],
) -> list[Unit]:
    """Returns units at one random position of a random source: the residual in two layers, and each
    component in one."""
    source = rng.choice(sorted(pair.sources)) if len(pair.sources) > 1 else next(iter(pair.sources))
    source_tokens = pair.source_positions[source]
    position = rng.choice(
        sorted(
            p for p, at in pair.base_positions.items() if len(source_tokens.get(p, ())) == len(at)
        )
    )
    sites = [Site(at, "residual", position) for at in rng.sample(range(layers), min(2, layers))]
    sites = sites if _has_residual(hook_points) else []
    for component in components:
        found = hook_points.of(component)
        layer = rng.choice(list(found))
        head = rng.randrange(found[layer].heads) if found[layer].heads else None
        at = _position_at(hook_points, pair, source, Point(layer, component), position)
        sites.append(Site(layer, component, at, head))
    return [Unit(site, source=source) for site in dict.fromkeys(sites)]


def _has_residual(hook_points: Components) -> bool:
    """Returns whether the residual can be patched: blocks of a network on tensors may have
    activations of another shape."""
    try:
        return bool(hook_points.of("residual"))
    except ModelError:
        return False


def _position_at(
    hook_points: Components, pair: Encoded, source: str, point: Point, position: str
) -> str:
    """Returns `position`, or "last" if the activation at `point` has fewer tokens."""
    sides = (pair.base, pair.base_positions), (pair.sources[source], pair.source_positions[source])
    lasts = [(hook_points.last(point, given), positions[position]) for given, positions in sides]
    return position if all(last is None or max(at) <= last for last, at in lasts) else LAST
