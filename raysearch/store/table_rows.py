"""Converts events and records to rows of the tables: one function for each table.

Invariants: a row is a pure function of the record or event, so that a replay writes the same.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any, TypeVar

from raysearch.core.events import Failed, Fitted, Lost
from raysearch.core.hypothesis import (
    Intervention,
    Subspace,
    Unit,
    canonical_json,
    split_key,
    to_plain,
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


def hypothesis_row(record: Proposed) -> dict[str, Any]:
    """Returns a row of `hypotheses`; columns in which its units differ are null, and `units` has
    them all.
    """
    intervention = record.hypothesis.intervention
    units = intervention.units
    return {
        "hypothesis": record.hypothesis.id,
        "intervention": intervention.id,
        "variable": record.hypothesis.variable,
        "layer": shared_layer(intervention),
        "component": _shared(u.site.component for u in units),
        "head": _shared(u.site.head for u in units),
        "position": _shared(u.site.position for u in units),
        "featurizer": _shared(u.subspace.featurizer for u in units),
        "features": _shared(_size(u.subspace) for u in units),
        "units": canonical_json([_unit(u, intervention) for u in units]),
        "control": intervention.control,
        "proposed_by": record.proposed_by,
        "generation": record.generation,
    }


def _unit(unit: Unit, intervention: Intervention) -> dict[str, Any]:
    """A unit, with its operation where that is no interchange."""
    plain: dict[str, Any] = to_plain(unit)
    return {**plain, "operation": intervention.kind} if intervention.is_ablation else plain


def effect_rows(record: Weighed) -> list[dict[str, Any]]:
    """Returns rows of `effects`."""
    return [
        {
            "variable": e.variable,
            "layer": e.unit.site.layer,
            "component": e.unit.site.component,
            "head": e.unit.site.head,
            "position": e.unit.site.position,
            "units": canonical_json(to_plain((e.unit,))),
            "effect": e.effect,
            "pairs": e.pairs,
        }
        for e in record.effects
    ]


def observation_row(record: Counted) -> dict[str, Any]:
    """Returns a row of `observations`."""
    seen = record.observation
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
        "conflicts": record.conflicts,
        "rows": seen.rows,
        "seconds": seen.seconds,
        "device": seen.device,
        "worker": seen.worker,
        "attempt": seen.attempt,
    }


def verdict_row(record: Decided, holdout: Estimated | None) -> dict[str, Any]:
    """Returns a row of `verdicts`; accepted hypotheses have a `holdout`."""
    return {
        "hypothesis": record.hypothesis.id,
        "verdict": record.verdict,
        "n": record.n,
        "matches": record.matches,
        "iia": iia_of(record),
        "low": record.low,
        "high": record.high,
        "keep_n": record.keep_n,
        "keep_iia": share(record.keep_matches, record.keep_n)
        if record.keep_score is None
        else record.keep_score,
        "copies": record.copies,
        "base_match_unfiltered": record.base_match_unfiltered,
        "self_swap_iia": _control_iia(holdout, "self_swap"),
        "random_source_iia": _control_iia(holdout, "random_source"),
        "holdout_n": holdout.n if holdout else None,
        "holdout_iia": iia_of(holdout) if holdout else None,
        "evidence": record.log_evidence,
        "claim": f"necessity, {record.claim}"
        if record.hypothesis.intervention.is_ablation
        else record.claim,
        "fit": record.fit,
        "reason": record.reason,
        "scores": canonical_json(dict(record.means)) if record.means else None,
    }


def set_rows(record: Decided) -> list[dict[str, Any]]:
    """Returns rows of `sets`: the evidence on each kind of pair."""
    return [
        {
            "hypothesis": record.hypothesis.id,
            "set": s.name,
            "n": s.n,
            "matches": s.matches,
            "iia": iia_of(s),
            "low": s.low,
            "high": s.high,
        }
        for s in record.sets
    ]


def dropped_rows(record: Blocked) -> list[dict[str, Any]]:
    """Returns rows of `dropped`: the pairs that do not count for a variable, by reason."""
    drawn: Counter[tuple[str, str | None, str | None]] = Counter()
    used: Counter[tuple[str, str | None, str | None]] = Counter()
    for c in record.counts:
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
        for c in record.counts
        if c.reason is not None
    ]


def course_rows(record: Trained) -> list[dict[str, Any]]:
    """Returns rows of `fits`: the course of one stretch of training."""
    event = record.event
    points = zip(event.steps, event.losses, event.iias, strict=True)
    return [
        _fit_row(event, record.rung, step=s, loss=loss, validation_iia=iia)
        for s, loss, iia in points
    ]


def fit_row(record: Concluded) -> dict[str, Any]:
    """Returns the last row of a seed in `fits`: its result."""
    event = record.event
    found = canonical_json(dict(event.found)) if event.found else None
    values = {
        "validation_iia": event.validation_iia,
        "fit": event.fit,
        "found": found,
        "status": record.status,
    }
    return _fit_row(event, record.rung, step=event.last, start=record.start, **values)


def seed_rows(record: Estimated) -> list[dict[str, Any]]:
    """Returns rows of `fits`: the holdout result of each seed of an accepted hypothesis."""
    return [
        {
            **_NO_FIT,
            "intervention": record.hypothesis.intervention.id,
            "seed": r.seed,
            "fit": r.fit,
            "status": "holdout",
            "holdout_n": r.n,
            "holdout_iia": iia_of(r),
        }
        for r in record.readings
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


def _fit_row(event: Fitted, rung: int, **values: Any) -> dict[str, Any]:
    return {
        **_NO_FIT,
        "intervention": event.intervention,
        "seed": event.seed,
        "rung": rung,
        **values,
    }


def _control_iia(holdout: Estimated | None, name: str) -> float | None:
    found = next((r for r in holdout.readings if r.name == name), None) if holdout else None
    return iia_of(found) if found else None


def iia_of(count: Decided | SetCount | Estimated | Reading) -> float | None:
    """Returns matches / n, or the mean score if the test is on one."""
    return share(count.matches, count.n) if count.score is None else count.score


def failure_row(event: Failed | Lost) -> dict[str, Any]:
    """Returns a row of `failures`: an error, or a lost worker.

    A loss has the error type "Lost", and its cause in the message.
    """
    if isinstance(event, Lost):
        single = _named(event.group[0]) if len(event.group) == 1 else None
        block = event.blocks[0] if len(event.blocks) == 1 else None
        return _failure(
            single, block, None, "Lost", f"{event.cause}: {event.message}", None, None, event.worker
        )
    what = event.error_type, event.message, event.traceback
    name = None if event.intervention is None else _named(event.intervention)
    return _failure(name, event.block, event.attempt, *what, event.node, event.worker)


def conflict_row(record: Conflicted) -> dict[str, Any]:
    """Returns a row of `failures`: a repeat with other outputs than the observation that was
    counted.
    """
    repeat = record.repeat
    if isinstance(repeat, Fitted):
        message = (
            f"a repeat of the steps from {repeat.first} of seed {repeat.seed} came to another fit "
            "than the first; the first counts"
        )
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
    message = (
        f"a repeat of {repeat.split} block {repeat.block} gave other outputs than the first; the "
        "first counts"
    )
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
    """Returns part / whole in [0, 1]; None if the whole is 0."""
    return part / whole if whole else None


def shared_layer(intervention: Intervention) -> int | None:
    """Returns the layer of all units; None if they differ, or have no layer."""
    return _shared(u.site.layer for u in intervention.units)


def _named(key: str) -> str:
    """Returns the intervention's id from the key of a part of a task."""
    return split_key(key)[0].partition("#")[0]


def _size(subspace: Subspace) -> int | None:
    """Returns the number of interchanged features; None for all of them."""
    return subspace.features if subspace.coordinates is None else len(subspace.coordinates)


def _shared(values: Iterable[T]) -> T | None:
    found = set(values)
    return found.pop() if len(found) == 1 else None
