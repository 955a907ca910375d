"""Converts events and records to rows of the tables: one function for each table.

Invariants: a row is a pure function of the record or event, so that a replay writes the same.
"""

from collections import Counter
from collections.abc import Iterable
from typing import Any, TypeVar

from raysearch.core.control_kinds import HOLDOUT_CONTROLS
from raysearch.core.events import Event, Failed, Fitted, Lost
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
    Selected,
    SetCount,
    Trained,
    Weighed,
)
from raysearch.store.schemas import TABLES

T = TypeVar("T")
_COLUMNS = {name: tuple(schema.names) for name, schema in TABLES.items()}


def hypothesis_row(record: Proposed) -> dict[str, Any]:
    """Returns a row of `hypotheses`; columns in which its units differ are null, and `units` has
    them all.
    """
    hypothesis = record.hypothesis
    intervention, units = hypothesis.intervention, hypothesis.intervention.units
    return _row(
        "hypotheses",
        record,
        hypothesis=hypothesis.id,
        intervention=intervention.id,
        variable=hypothesis.variable,
        layer=shared_layer(intervention),
        component=_shared(u.site.component for u in units),
        head=_shared(u.site.head for u in units),
        position=_shared(u.site.position for u in units),
        featurizer=_shared(u.subspace.featurizer for u in units),
        features=_shared(_size(u.subspace) for u in units),
        units=canonical_json([_unit(u, intervention) for u in units]),
        control=intervention.control,
    )


def _unit(unit: Unit, intervention: Intervention) -> dict[str, Any]:
    """Returns a unit as plain values, with its operation unless that is an interchange."""
    plain: dict[str, Any] = to_plain(unit)
    return {**plain, "operation": intervention.kind} if intervention.is_ablation else plain


def effect_rows(record: Weighed) -> list[dict[str, Any]]:
    """Returns rows of `effects`."""
    return [
        {
            **_row("effects", e.unit.site, variable=e.variable, effect=e.effect, pairs=e.pairs),
            "units": canonical_json(to_plain((e.unit,))),
        }
        for e in record.effects
    ]


def observation_row(record: Counted) -> dict[str, Any]:
    """Returns a row of `observations`."""
    seen = record.observation
    intervention, fit = split_key(seen.intervention)
    return _row(
        "observations",
        seen,
        intervention=intervention,
        fit=fit,
        conflicts=record.conflicts,
        part=record.part,
    )


def verdict_row(record: Decided, holdout: Estimated | None) -> dict[str, Any]:
    """Returns a row of `verdicts`; accepted hypotheses have a `holdout`."""
    keep_iia = record.keep_score
    if keep_iia is None:
        keep_iia = share(record.keep_matches, record.keep_n)
    against = record.against
    necessity = "necessity, " if record.hypothesis.intervention.is_ablation else ""
    return _row(
        "verdicts",
        record,
        hypothesis=record.hypothesis.id,
        iia=iia_of(record),
        keep_iia=keep_iia,
        no_intervention_iia=record.no_intervention,
        **{f"{name}_iia": _control_iia(holdout, name) for name in HOLDOUT_CONTROLS},
        random_source_n=_control_n(holdout, "random_source"),
        holdout_n=holdout.n if holdout else None,
        holdout_iia=iia_of(holdout) if holdout else None,
        holdout_low=holdout and holdout.low,
        holdout_high=holdout and holdout.high,
        holdout_distinct=holdout and holdout.distinct,
        evidence=record.log_evidence,
        claim=f"{necessity}{record.claim}",
        scores=canonical_json(dict(record.means)) if record.means else None,
        baseline=against and against.baseline.words,
        baseline_iia=against and against.share,
        margin_low=against and against.low,
        margin_high=against and against.high,
    )


def selection_row(record: Selected) -> dict[str, Any]:
    """Returns a row of `selection`."""
    return _row("selection", record, hypothesis=record.hypothesis.id)


def set_rows(record: Decided) -> list[dict[str, Any]]:
    """Returns rows of `sets`: the evidence on each kind of pair."""
    name = record.hypothesis.id
    return [_row("sets", s, hypothesis=name, set=s.name, iia=iia_of(s)) for s in record.sets]


def dropped_rows(record: Blocked) -> list[dict[str, Any]]:
    """Returns rows of `dropped`: the pairs that do not count for a variable, by reason."""
    drawn: Counter[tuple[str, str | None, str | None]] = Counter()
    used = drawn.copy()
    for c in record.counts:
        drawn[c.variable, c.split, c.set] += c.pairs
        used[c.variable, c.split, c.set] += c.pairs if c.reason is None else 0
    return [
        _row(
            "dropped",
            c,
            drawn=drawn[c.variable, c.split, c.set],
            used=used[c.variable, c.split, c.set],
            detail=c.detail or None,
        )
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
        _row(
            "fits",
            None,
            intervention=record.hypothesis.intervention.id,
            seed=r.seed,
            fit=r.fit,
            status="holdout",
            holdout_n=r.n,
            holdout_iia=iia_of(r),
        )
        for r in record.readings
        if r.name == "seed"
    ]


def _fit_row(event: Fitted, rung: int, **values: Any) -> dict[str, Any]:
    given = {"intervention": event.intervention, "seed": event.seed, "rung": rung, **values}
    return _row("fits", None, **given)


def _row(table: str, record: object, **given: Any) -> dict[str, Any]:
    """Returns a row with every column of a table: as given, else the attribute of `record` of that
    name, else null.
    """
    return {
        name: given[name] if name in given else getattr(record, name, None)
        for name in _COLUMNS[table]
    }


def _control_iia(holdout: Estimated | None, name: str) -> float | None:
    found = _reading(holdout, name)
    return iia_of(found) if found else None


def _control_n(holdout: Estimated | None, name: str) -> int | None:
    found = _reading(holdout, name)
    return found.n if found else None


def _reading(holdout: Estimated | None, name: str) -> Reading | None:
    return next((r for r in holdout.readings if r.name == name), None) if holdout else None


def iia_of(count: Decided | SetCount | Estimated | Reading) -> float | None:
    """Returns matches / n, or the mean score if the test is on one."""
    return share(count.matches, count.n) if count.score is None else count.score


def failure_row(event: Failed | Lost) -> dict[str, Any]:
    """Returns a row of `failures`: an error, or a lost worker.

    A loss has the error type "Lost", and its cause in the message.
    """
    if isinstance(event, Lost):
        return _failure(
            event,
            event.group[0] if len(event.group) == 1 else None,
            block=event.blocks[0] if len(event.blocks) == 1 else None,
            attempt=None,
            error_type="Lost",
            message=f"{event.cause}: {event.message}",
        )
    return _failure(event, event.intervention)


def conflict_row(record: Conflicted) -> dict[str, Any]:
    """Returns a row of `failures`: a repeat with other outputs than the observation that was
    counted.
    """
    repeat = record.repeat
    if isinstance(repeat, Fitted):
        what = f"the steps from {repeat.first} of seed {repeat.seed} came to another fit"
    else:
        what = f"{repeat.split} block {repeat.block} gave other outputs"
    message = f"a repeat of {what} than the first; the first counts"
    return _failure(repeat, repeat.intervention, error_type="Conflict", message=message)


def _failure(event: Event, key: str | None, **given: Any) -> dict[str, Any]:
    """Returns the row of a failure. `key`: the part of the task that failed; None: all of it."""
    name = None if key is None else _named(key)
    return _row("failures", event, intervention=name, actor=event.worker, **given)


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
