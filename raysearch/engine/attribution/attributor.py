"""Attribution: what interchanges would do to first order, at all sites at once
(proposers/attribution.py says what for, and who found it).

    move of a unit = sum over its tokens and numbers of  gradient · (activation of the source - activation of the base)
    gradient: of the lead, [logit of the base's answer - logit of the counterfactual], at the first token where these differ, behind
              what they share
    effect on a pair = min(1, |move| / |lead|): how much of the lead would be moved, either way, at most all of it

Single pairs have moves of many times the lead, and of the wrong sign, where a network is far from
linear: means of moves as they are lost more true sites (docs/reference/searches.md has figures). Tokens of a
unit count as if none of them changed another: so it is but for time steps of a recurrent network.

One run of each source and, for each counterfactual of a pair, one run of the base with one backward
pass serve all units. Invariants: effects do not depend on the company in which rows are run, but
for rounding; batches are held against runs one at a time before they are trusted.
"""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile

import torch
from jaxtyping import Float
from torch import Tensor

from raysearch.core.events import Encoded, Ids
from raysearch.core.hypothesis import Intervention, Unit
from raysearch.engine.attribution.gradients import AtPoints, GradientProbe, LeadQuery, ProbedRun
from raysearch.engine.execution.memory import RowLimit, halving
from raysearch.engine.execution.usage import UsageMeter
from raysearch.engine.networks.components import Components
from raysearch.engine.networks.network import ModelInput, Network, batches, tokens_of
from raysearch.engine.networks.point import Point
from raysearch.engine.patching.build import build_row
from raysearch.engine.patching.rows import FeatureIndices, Patch
from raysearch.errors import RaysearchError

log = logging.getLogger(__name__)

DIGITS = 6
"""That an effect is told to: behind them float32 has only noise."""
TRIED = 2
"""Rows on which batches are held against runs one at a time."""


@dataclass(frozen=True, slots=True)
class _Turn:
    """A pair and one of its counterfactuals, with the variables that have it."""

    pair: Encoded
    swayed: LeadQuery
    variables: tuple[str, ...]


_Patches = Mapping[int, Patch]
"""What a unit's interchange is, by the index of the pair."""
_Span = tuple[Unit, FeatureIndices]
"""A unit of which the one that is asked about is these numbers (None: all)."""


class Attributor:
    """Computes effects on one network, at most `limit.rows` rows in a forward and backward pass;
    `plain`: one by one.

    `tolerance` (logits): moves of a batch may be off by a quarter of it, or of so many times the
    largest where that is more than 1.
    """

    def __init__(
        self,
        network: Network,
        taps: Components,
        plain: bool,
        limit: RowLimit,
        tolerance: float,
        meter: UsageMeter | None = None,
    ) -> None:
        self._network = network
        self._taps = taps
        self._limit = limit
        self._tolerance = tolerance
        self._meter = UsageMeter() if meter is None else meter
        self._plain = GradientProbe(network, taps, plainly=True)
        self._probes = (
            self._plain if plain else None
        )  # None: it is not known yet whether batches hold

    def effects(
        self, pairs: Sequence[Encoded], units: Sequence[Unit]
    ) -> dict[str, tuple[float | None, ...]]:
        """Of each variable, for each unit the sum over its change pairs; None where a unit cannot
        be interchanged on a pair.

        Raises: ArithmeticError where one is no number.
        """
        spans = [self._span(unit) for unit in units]
        patches = {unit: self._patches(unit, pairs) for unit, _ in dict.fromkeys(spans)}
        known = {unit: of for unit, of in patches.items() if of is not None}
        asked = [span for span in spans if span[0] in known]
        turns = [turn for pair in pairs for turn in _turns(pair)]
        told: dict[str, list[list[float]]] = {
            variable: [] for variable in (pairs[0].counterfactual if pairs else ())
        }
        for turn, effects in self._all(turns, known, list(dict.fromkeys(asked))):
            for variable in turn.variables:
                told[variable].append(effects)
        place = {span: at for at, span in enumerate(dict.fromkeys(asked))}
        return {
            variable: tuple(
                _sum([e[place[span]] for e in of_turns]) if span in place else None
                for span in spans
            )
            for variable, of_turns in told.items()
        }

    def _span(self, unit: Unit) -> _Span:
        """Heads of one vector are taken from it together."""
        head = unit.site.head
        if head is None or unit.source_site is not None:
            return unit, None
        tap = self._taps.at(Point(unit.site.layer, unit.site.component))
        width = tap.width // tap.heads
        return replace(unit, site=replace(unit.site, head=None)), range(
            head * width, (head + 1) * width
        )

    def _patches(self, unit: Unit, pairs: Sequence[Encoded]) -> _Patches | None:
        """None where one of the pairs has no such interchange: asked about, the unit would fail
        there."""
        intervention = Intervention((unit,))
        try:
            return {
                pair.index: build_row(pair, intervention, self._taps).patches[0] for pair in pairs
            }
        except RaysearchError:
            return None

    def _all(
        self, turns: Sequence[_Turn], patches: Mapping[Unit, _Patches], spans: Sequence[_Span]
    ) -> Iterator[tuple[_Turn, list[float]]]:
        """Each turn with the effects of all spans."""
        if not turns or not spans:
            return
        probes = self._trusted(turns, patches, spans)
        rows = 1 if probes.plainly else self._limit.rows
        for batch in batches(turns, lambda turn: self._network.company(turn.swayed.base), rows):
            done = halving(
                batch, lambda part: (part, *self._moves(probes, part, patches, spans)), self._limit
            )
            for part, moves, leads in done:
                shares = moves.abs() / leads.abs().clamp(min=torch.finfo(leads.dtype).tiny)[:, None]
                yield from zip(part, shares.clamp(max=1).tolist(), strict=True)

    def _moves(
        self,
        probes: GradientProbe,
        turns: Sequence[_Turn],
        patches: Mapping[Unit, _Patches],
        spans: Sequence[_Span],
    ) -> tuple[Float[Tensor, "turn span"], Float[Tensor, "turn"]]:
        """Of turns of one company the moves, and the leads."""
        points = list(
            dict.fromkeys(
                patch.point for of_pairs in patches.values() for patch in of_pairs.values()
            )
        )
        bases = probes.sway([turn.swayed for turn in turns], points)
        self._meter.ran(sum(tokens_of(turn.swayed.base) for turn in turns))
        sources = self._sources(probes, turns, patches)
        products: dict[Unit, Float[Tensor, "turn width"]] = {}
        for unit, of_pairs in patches.items():
            rows = zip(turns, bases, strict=True)
            products[unit] = torch.stack(
                [_product(of_pairs[t.pair.index], base, sources) for t, base in rows]
            ).cpu()
        columns = [
            products[u] if features is None else products[u][:, list(features)]
            for u, features in spans
        ]
        leads = torch.tensor([base.lead for base in bases], dtype=torch.float64)
        return torch.stack([column.sum(1) for column in columns], dim=1), leads

    def _sources(
        self, probes: GradientProbe, turns: Sequence[_Turn], patches: Mapping[Unit, _Patches]
    ) -> dict[ModelInput, AtPoints]:
        """The run of each source that lends on these turns."""
        lent = [of[turn.pair.index].sources[0] for of in patches.values() for turn in turns]
        points = list(dict.fromkeys(source.point for source in lent))
        seen: dict[ModelInput, AtPoints] = {}
        rows = 1 if probes.plainly else self._limit.rows
        for batch in batches(
            list(dict.fromkeys(s.run.base for s in lent)), self._network.company, rows
        ):
            seen.update(zip(batch, probes.look(batch, points), strict=True))
            self._meter.ran(sum(map(tokens_of, batch)))
        return seen

    def _trusted(
        self, turns: Sequence[_Turn], patches: Mapping[Unit, _Patches], spans: Sequence[_Span]
    ) -> GradientProbe:
        """Batches, where they give on a few rows what runs one at a time give; decided once. Warns
        if not."""
        if self._probes is None:
            company = self._network.company(turns[0].swayed.base)
            tried = [turn for turn in turns if self._network.company(turn.swayed.base) == company][
                :TRIED
            ]
            alone = torch.cat(
                [self._moves(self._plain, [turn], patches, spans)[0] for turn in tried]
            )
            batched = GradientProbe(self._network, self._taps, plainly=False)
            off = float((self._moves(batched, tried, patches, spans)[0] - alone).abs().max())
            allowed = self._tolerance / 4 * max(1.0, float(alone.abs().max()))
            self._probes = batched if off <= allowed else self._plain
            if self._probes is self._plain:
                log.warning(
                    "%s: gradients of a batch are off: moves by up to %.2g logits (allowed %.2g): "
                    "bases are run one by one, slowly",
                    self._network.name,
                    off,
                    allowed,
                )
        return self._probes


def _turns(pair: Encoded) -> Iterator[_Turn]:
    """One for each counterfactual that is not the base's answer; none for one that goes on as the
    base's answer does or ends there."""
    own = pair.answers["base"]
    by_answer: dict[Ids, list[str]] = {}
    for variable, ids in pair.counterfactual.items():
        if ids != own:
            by_answer.setdefault(ids, []).append(variable)
    for ids, variables in by_answer.items():
        shared = sum(
            1 for _ in takewhile(lambda both: both[0] == both[1], zip(ids, own, strict=False))
        )
        if shared == min(len(ids), len(own)):
            continue
        given = pair.base
        if shared:
            assert isinstance(given, tuple), "only a text goes on"
            given = (*given, *ids[:shared])
        yield _Turn(pair, LeadQuery(given, ids[shared], own[shared]), tuple(variables))


def _product(
    patch: Patch, base: ProbedRun, sources: Mapping[ModelInput, AtPoints]
) -> Float[Tensor, "width"]:
    """Number by number, summed over tokens; in double precision, for what cancels."""
    (source,) = patch.sources
    lent = _taken(sources[source.run.base][source.point], source.tokens, source.features)
    ours, gradient = (
        _taken(of[patch.point], patch.tokens, patch.features)
        for of in (base.activations, base.gradients)
    )
    product: Tensor = (gradient * (lent.to(ours.device) - ours)).sum(0)
    return product


def _taken(
    seen: Float[Tensor, "token width"], tokens: Ids, features: FeatureIndices
) -> Float[Tensor, "token feature"]:
    chosen = seen[list(tokens)]
    return (chosen if features is None else chosen[:, list(features)]).double()


def _sum(effects: Sequence[float]) -> float:
    """Raises: ArithmeticError where it is no number."""
    total = math.fsum(effects)
    if not math.isfinite(total):
        raise ArithmeticError(
            f"an effect is {total}: the gradients of the model's logits are no numbers"
        )
    return float(f"{total:.{DIGITS}g}")
