"""Events and notes as rows of the tables: one function for each table.

Invariants: a row is a pure function of the note or event, so that a replay writes the same.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any, TypeVar

from raysearch.core.events import Failed, Fitted, Lost
from raysearch.core.hypothesis import (
    Intervention,
    Subspace,
    Unit,
    as_plain,
    canonical_json,
    split_key,
)
from raysearch.core.records import (
    Blocked,
    Concluded,
    Conflicted,
    Counted,
    Decided,
    Estimated,
    Proposed,
    Reading,
    SetCount,
    Trained,
    Weighed,
)

T = TypeVar("T")


def hypothesis_row(note: Proposed) -> dict[str, Any]:
    """A row of `hypotheses`. What the units do not share is null; `units` says it exactly."""
    intervention = note.hypothesis.intervention
    units = intervention.units
    return {
        "hypothesis": note.hypothesis.id,
        "intervention": intervention.id,
        "variable": note.hypothesis.variable,
        "layer": shared_layer(intervention),
        "component": _shared(u.site.component for u in units),
        "head": _shared(u.site.head for u in units),
        "position": _shared(u.site.position for u in units),
        "featurizer": _shared(u.subspace.featurizer for u in units),
        "features": _shared(_size(u.subspace) for u in units),
        "units": canonical_json([_unit(u, intervention) for u in units]),
        "control": intervention.control,
        "proposed_by": note.proposed_by,
        "generation": note.generation,
    }


def _unit(unit: Unit, intervention: Intervention) -> dict[str, Any]:
    """A unit, with its operation where that is no interchange."""
    plain: dict[str, Any] = as_plain(unit)
    return {**plain, "operation": intervention.kind} if intervention.is_ablation else plain


def effect_rows(note: Weighed) -> list[dict[str, Any]]:
    """Rows of `effects`."""
    return [
        {
            "variable": e.variable,
            "layer": e.unit.site.layer,
            "component": e.unit.site.component,
            "head": e.unit.site.head,
            "position": e.unit.site.position,
            "units": canonical_json(as_plain((e.unit,))),
            "effect": e.effect,
            "pairs": e.pairs,
        }
        for e in note.effects
    ]


def observation_row(note: Counted) -> dict[str, Any]:
    """A row of `observations`."""
    seen = note.observation
    intervention, fit = split_key(seen.intervention)
    return {
        "intervention": intervention,
        "fit": fit,
        "split": seen.split,
        "block": seen.block,
        "pairs": seen.pairs,
        "outputs": seen.outputs,
        "scores": seen.scores,
        "near_ties": seen.near_ties,
        "conflicts": note.conflicts,
        "rows": seen.rows,
        "seconds": seen.seconds,
        "device": seen.device,
        "worker": seen.worker,
        "attempt": seen.attempt,
    }


def verdict_row(note: Decided, holdout: Estimated | None) -> dict[str, Any]:
    """A row of `verdicts`; `holdout` for accepted ones."""
    return {
        "hypothesis": note.hypothesis.id,
        "verdict": note.verdict,
        "n": note.n,
        "matches": note.matches,
        "iia": iia_of(note),
        "low": note.low,
        "high": note.high,
        "keep_n": note.keep_n,
        "keep_iia": share(note.keep_matches, note.keep_n)
        if note.keep_score is None
        else note.keep_score,
        "copies": note.copies,
        "base_match_unfiltered": note.base_match_unfiltered,
        "self_swap_iia": _beside(holdout, "self_swap"),
        "random_source_iia": _beside(holdout, "random_source"),
        "holdout_n": holdout.n if holdout else None,
        "holdout_iia": iia_of(holdout) if holdout else None,
        "evidence": note.log_evidence,
        "claim": f"necessity, {note.claim}"
        if note.hypothesis.intervention.is_ablation
        else note.claim,
        "fit": note.fit,
        "reason": note.reason,
        "scores": canonical_json(dict(note.means)) if note.means else None,
    }


def set_rows(note: Decided) -> list[dict[str, Any]]:
    """Rows of `sets`: the evidence on each kind of pair."""
    return [
        {
            "hypothesis": note.hypothesis.id,
            "set": s.name,
            "n": s.n,
            "matches": s.matches,
            "iia": iia_of(s),
            "low": s.low,
            "high": s.high,
        }
        for s in note.sets
    ]


def dropped_rows(note: Blocked) -> list[dict[str, Any]]:
    """Rows of `dropped`: the pairs that do not count for a variable, by reason."""
    drawn: Counter[tuple[str, str | None, str | None]] = Counter()
    used: Counter[tuple[str, str | None, str | None]] = Counter()
    for c in note.counts:
        drawn[c.variable, c.split, c.set] += c.pairs
        used[c.variable, c.split, c.set] += c.pairs if c.reason is None else 0
    return [
        {
            "variable": c.variable,
            "split": c.split,
            "set": c.set,
            "reason": c.reason,
            "pairs": c.pairs,
            "drawn": drawn[c.variable, c.split, c.set],
            "used": used[c.variable, c.split, c.set],
            "detail": c.detail or None,
            "way_out": c.way_out,
        }
        for c in note.counts
        if c.reason is not None
    ]


def course_rows(note: Trained) -> list[dict[str, Any]]:
    """Rows of `fits`: the course of one stretch of training."""
    event = note.event
    points = zip(event.steps, event.losses, event.iias, strict=True)
    return [
        _fit_row(event, note.rung, step=s, loss=loss, validation_iia=iia) for s, loss, iia in points
    ]


def fit_row(note: Concluded) -> dict[str, Any]:
    """The last row of a seed in `fits`: what came of it."""
    event = note.event
    found = canonical_json(dict(event.found)) if event.found else None
    said = {
        "validation_iia": event.validation_iia,
        "fit": event.fit,
        "found": found,
        "status": note.status,
    }
    return _fit_row(event, note.rung, step=event.last, start=note.start, **said)


def seed_rows(note: Estimated) -> list[dict[str, Any]]:
    """Rows of `fits`: what each seed of an accepted hypothesis came to on the holdout."""
    return [
        {
            **_NO_FIT,
            "intervention": note.hypothesis.intervention.id,
            "seed": r.seed,
            "fit": r.fit,
            "status": "holdout",
            "holdout_n": r.n,
            "holdout_iia": iia_of(r),
        }
        for r in note.beside
        if r.name == "seed"
    ]


_FIT_COLUMNS = (
    "intervention",
    "seed",
    "step",
    "loss",
    "validation_iia",
    "rung",
    "fit",
    "status",
    "found",
    "start",
    "holdout_n",
    "holdout_iia",
)
_NO_FIT: dict[str, Any] = dict.fromkeys(_FIT_COLUMNS)


def _fit_row(event: Fitted, rung: int, **said: Any) -> dict[str, Any]:
    return {**_NO_FIT, "intervention": event.intervention, "seed": event.seed, "rung": rung, **said}


def _beside(holdout: Estimated | None, name: str) -> float | None:
    found = next((r for r in holdout.beside if r.name == name), None) if holdout else None
    return iia_of(found) if found else None


def iia_of(count: Decided | SetCount | Estimated | Reading) -> float | None:
    """Matches / n; the mean score, where the test is on one."""
    return share(count.matches, count.n) if count.score is None else count.score


def failure_row(event: Failed | Lost) -> dict[str, Any]:
    """A row of `failures`: what raised, or lost its worker (then of error type "Lost", with the
    cause in the message)."""
    if isinstance(event, Lost):
        single = _named(event.group[0]) if len(event.group) == 1 else None
        block = event.blocks[0] if len(event.blocks) == 1 else None
        return _failure(
            single, block, None, "Lost", f"{event.cause}: {event.message}", None, None, event.worker
        )
    what = event.error_type, event.message, event.traceback
    name = None if event.intervention is None else _named(event.intervention)
    return _failure(name, event.block, event.attempt, *what, event.node, event.worker)


def conflict_row(note: Conflicted) -> dict[str, Any]:
    """A row of `failures`: a repeat that gave other outputs than the observation that was counted."""
    repeat = note.repeat
    if isinstance(repeat, Fitted):
        message = f"a repeat of the steps from {repeat.first} of seed {repeat.seed} came to another fit than the first; the first counts"
        return _failure(
            repeat.intervention,
            None,
            repeat.attempt,
            "Conflict",
            message,
            None,
            None,
            repeat.worker,
        )
    message = f"a repeat of {repeat.split} block {repeat.block} gave other outputs than the first; the first counts"
    return _failure(
        _named(repeat.intervention),
        repeat.block,
        repeat.attempt,
        "Conflict",
        message,
        None,
        None,
        repeat.worker,
    )


def _failure(
    intervention: str | None,
    block: int | None,
    attempt: int | None,
    error_type: str,
    message: str,
    traceback: str | None,
    node: str | None,
    actor: str,
) -> dict[str, Any]:
    return {
        "intervention": intervention,
        "block": block,
        "attempt": attempt,
        "error_type": error_type,
        "message": message,
        "traceback": traceback,
        "node": node,
        "actor": actor,
    }


def share(part: int, whole: int) -> float | None:
    """part / whole in [0, 1]; None where there is nothing to divide by."""
    return part / whole if whole else None


def shared_layer(intervention: Intervention) -> int | None:
    """The layer in which all units lie; None if they lie in several, or in none."""
    return _shared(u.site.layer for u in intervention.units)


def _named(key: str) -> str:
    """The id of an intervention, of the key of a part of a task."""
    return split_key(key)[0].partition("#")[0]


def _size(subspace: Subspace) -> int | None:
    """How many features are interchanged; None: all of them."""
    return subspace.features if subspace.coordinates is None else len(subspace.coordinates)


def _shared(values: Iterable[T]) -> T | None:
    found = set(values)
    return found.pop() if len(found) == 1 else None
