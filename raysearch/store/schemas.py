"""The Arrow schemas of a run's tables, with meaning and unit of each column.

Invariants: users' scripts depend on the names, so a column is never renamed or given another type
without a new schema_version; columns that only later versions fill exist and are null.
"""

from typing import Any

import pyarrow as pa

from raysearch.store.run_folder import SCHEMA_VERSION

TEXT, INT, REAL = pa.string(), pa.int32(), pa.float64()
IDS = pa.list_(INT)
_SCORES = pa.map_(TEXT, pa.map_(TEXT, pa.list_(REAL)))
_Row = tuple[str, Any, str, str]


def table_schema(table: str, *columns: _Row) -> pa.Schema:
    fields = [
        pa.field(name, kind, metadata={"meaning": meaning, "unit": unit})
        for name, kind, meaning, unit in columns
    ]
    return pa.schema(fields, metadata={"schema_version": str(SCHEMA_VERSION), "table": table})


HYPOTHESES = table_schema(
    "hypotheses",
    (
        "hypothesis",
        TEXT,
        "id: first 16 hex digits of the SHA-256 of variable and intervention",
        "id",
    ),
    ("intervention", TEXT, "id of the intervention; several hypotheses may share it", "id"),
    ("variable", TEXT, "variable of the causal model", "name"),
    (
        "layer",
        INT,
        "layer, counted from 0; null for what is of no layer (0 in runs before 2026-11-29), or "
        "where the units lie in several",
        "index",
    ),
    (
        "component",
        TEXT,
        "which activation, e.g. residual; null where the units differ",
        "name",
    ),
    (
        "head",
        INT,
        "head of a per-head component, counted from 0; null for the whole vector, or where the "
        "units differ",
        "index",
    ),
    ("position", TEXT, "named position in the text; null where the units differ", "name"),
    (
        "featurizer",
        TEXT,
        "map from activation to features; null where the units differ",
        "name",
    ),
    (
        "features",
        INT,
        "how many features (coordinates) are interchanged; null: all of them, or the units differ",
        "count",
    ),
    ("units", TEXT, "the units of the intervention, exactly", "JSON"),
    (
        "control",
        TEXT,
        "the control that the intervention stands for; null for real hypotheses",
        "name",
    ),
    ("proposed_by", TEXT, "proposer", "name"),
    (
        "generation",
        INT,
        "0 for the first proposals, +1 each time the proposer is asked again",
        "count",
    ),
)

OBSERVATIONS = table_schema(
    "observations",
    ("intervention", TEXT, "id of the intervention", "id"),
    ("fit", TEXT, "digest of the fitted subspace; null where nothing is trained", "digest"),
    ("split", TEXT, "test or holdout", "name"),
    ("block", INT, "block of pairs within the split, counted from 0", "index"),
    ("pairs", pa.list_(INT), "the pairs of the block, as in pairs.parquet", "index"),
    (
        "outputs",
        pa.list_(IDS),
        "per pair, the ids that the model answered under the intervention",
        "token or class id",
    ),
    (
        "scores",
        _SCORES,
        "per score and variable, one number a pair, as the engine saw it (what a test on the logit "
        "difference reads: "
        "clip((d + scale) / (2 scale), 0, 1), scale in run.json); null where none is declared",
        "logit_difference: logits; probability: share; kl: nats; squared_error: share^2",
    ),
    (
        "near_ties",
        INT,
        "outputs whose two best logits were too close to call, decided again at batch one",
        "count",
    ),
    (
        "conflicts",
        INT,
        "repeats that said otherwise before it was counted; later ones are rows of failures",
        "count",
    ),
    ("rows", INT, "rows that the model ran for it", "count"),
    ("seconds", REAL, "its share of the task's time", "s"),
    ("device", TEXT, "device that it ran on", "name"),
    ("worker", TEXT, "process that ran it", "name"),
    ("attempt", INT, "attempts of its task before this one", "count"),
)

VERDICTS = table_schema(
    "verdicts",
    ("hypothesis", TEXT, "id of the hypothesis", "id"),
    ("verdict", TEXT, "accept, reject, undecided or failed", "name"),
    ("n", INT, "change pairs counted at the stopping time", "pairs"),
    ("matches", INT, "of those, outputs equal to the counterfactual", "pairs"),
    (
        "iia",
        REAL,
        "matches / n, or the mean score where the test is on one; at a stopping time (biased); "
        "null where n is 0",
        "share",
    ),
    (
        "low",
        REAL,
        "lower end of the two-sided 95 % interval of what iia is, valid at the stopping time",
        "share",
    ),
    (
        "high",
        REAL,
        "upper end of the two-sided 95 % interval valid at the stopping time",
        "share",
    ),
    (
        "keep_n",
        INT,
        "keep pairs counted: the counterfactual equals the base's answer",
        "pairs",
    ),
    (
        "keep_iia",
        REAL,
        "share of keep pairs whose output is the base's answer, or their mean score; null where "
        "keep_n is 0",
        "share",
    ),
    ("copies", INT, "change pairs whose output is the source's own answer", "pairs"),
    (
        "base_match_unfiltered",
        REAL,
        "control: share of all screened test pairs whose output without intervention is the "
        "counterfactual",
        "share",
    ),
    (
        "no_intervention_iia",
        REAL,
        "control: share of the test pairs that count whose output without intervention is the "
        "counterfactual",
        "share",
    ),
    ("self_swap_iia", REAL, "control: the base's own activation put in", "share"),
    (
        "random_source_iia",
        REAL,
        "control: the activation of a random other source put in",
        "share",
    ),
    ("random_source_n", INT, "pairs after which that control was decided", "pairs"),
    (
        "holdout_n",
        INT,
        "pairs that count among those of the holdout that were used; null unless accepted",
        "pairs",
    ),
    (
        "holdout_iia",
        REAL,
        "IIA on the holdout; null unless accepted and holdout_n > 0",
        "share",
    ),
    ("holdout_low", REAL, "lower end of the 95 % interval of what holdout_iia is", "share"),
    ("holdout_high", REAL, "upper end of that interval", "share"),
    ("evidence", REAL, "log e-value against the null that was rejected", "nats"),
    (
        "accept_to",
        REAL,
        "the same evidence accepts, at the same level, at each threshold up to this one (of 0.05, "
        "0.10 ... 0.90, 0.91 ... 0.99); null at none",
        "share",
    ),
    (
        "reject_from",
        REAL,
        "it rejects at each threshold from this one on; null at none",
        "share",
    ),
    ("claim", TEXT, "how its pairs are taken: these_pairs or sampler", "name"),
    (
        "population",
        TEXT,
        "what the verdict is about, and its bound and interval hold for: sampler, not_trained_on, "
        "not_tested_before, "
        "these_values, new_values, these_pairs; test_part: the part of the domain that was set apart",
        "name",
    ),
    (
        "population_size",
        INT,
        "number of its pairs that count, or of its values (these_values); null where it is not "
        "finite",
        "pairs or values",
    ),
    ("distinct", INT, "different pairs among the n", "pairs"),
    (
        "fit",
        TEXT,
        "digest of the fitted subspace that was tested; null where nothing is fit",
        "digest",
    ),
    ("reason", TEXT, "why it failed; null else", "text"),
    (
        "scores",
        TEXT,
        "mean of each declared score over the n pairs; null where none is declared",
        "JSON; as the score",
    ),
    (
        "baseline",
        TEXT,
        "the pure policy, which looks into no network, that scores best on pairs of the variable "
        "that are never tested; null for controls and ablations",
        "text",
    ),
    ("baseline_iia", REAL, "share of the n pairs on which that policy is right", "share"),
    (
        "margin_low",
        REAL,
        "lower end of the 95 % interval of matches / n minus baseline_iia, on the same pairs; null "
        "unless accepted, and where the variable is that policy, so that nothing can beat it",
        "share",
    ),
    ("margin_high", REAL, "upper end of that interval", "share"),
    (
        "level",
        REAL,
        "chance of a false accept that the verdict spends: test.false_accept / K, K as it is for "
        "this hypothesis; null in runs before 2026-11-29",
        "share",
    ),
)

FITS = table_schema(
    "fits",
    ("intervention", TEXT, "id of the intervention", "id"),
    ("seed", INT, "seed of the fit; 0 for what is computed without training", "seed"),
    ("step", INT, "steps of training done", "steps"),
    ("loss", REAL, "mean training loss since the row before; null at the end", "nats"),
    (
        "validation_iia",
        REAL,
        "IIA on change pairs of the validation part of the fit pairs; at the end, of the best",
        "share",
    ),
    ("rung", INT, "rungs of successive halving passed before", "count"),
    (
        "fit",
        TEXT,
        "digest of what was fit: interventions/<digest>.safetensors; null before the end",
        "digest",
    ),
    (
        "status",
        TEXT,
        "null: the course; done, stopped (no better any more) or dropped (hopeless at a rung): the "
        "end; holdout: an estimate",
        "name",
    ),
    (
        "found",
        TEXT,
        "what training found, such as the width of a boundary; null where there is nothing",
        "JSON",
    ),
    (
        "start",
        TEXT,
        "at the end, the digest of the larger rotation within which it began (fit.warm_start); "
        "null where it began at random",
        "digest",
    ),
    (
        "holdout_n",
        INT,
        "change pairs of the holdout; null but in rows of status holdout",
        "pairs",
    ),
    (
        "holdout_iia",
        REAL,
        "IIA of this seed on the holdout; null but in rows of status holdout",
        "share",
    ),
)

SETS = table_schema(
    "sets",
    ("hypothesis", TEXT, "id of the hypothesis", "id"),
    ("set", TEXT, "kind of pair, as the problem or the file of pairs names it", "name"),
    ("n", INT, "pairs of that kind among those that count, at the stopping time", "pairs"),
    ("matches", INT, "of those, outputs equal to the counterfactual", "pairs"),
    ("iia", REAL, "matches / n, or the mean score where the test is on one", "share"),
    (
        "low",
        REAL,
        "lower end of the 95 % interval of this kind alone, valid at the stopping time",
        "share",
    ),
    (
        "high",
        REAL,
        "upper end of the 95 % interval of this kind alone, valid at the stopping time",
        "share",
    ),
)

DROPPED = table_schema(
    "dropped",
    ("variable", TEXT, "variable of the causal model", "name"),
    ("split", TEXT, "fit, test or holdout; null for what belonged to several", "name"),
    ("set", TEXT, "kind of pair; null where kinds are not told apart", "name"),
    (
        "reason",
        TEXT,
        "why these pairs do not count for the variable: the first reason that holds",
        "name",
    ),
    ("pairs", pa.int64(), "how many", "pairs"),
    (
        "drawn",
        pa.int64(),
        "of this split and set: drawn or read in all = used + left out for all reasons",
        "pairs",
    ),
    (
        "used",
        pa.int64(),
        "of this split and set: used for the variable; a verdict's n is at most that",
        "pairs",
    ),
    ("detail", TEXT, "what is lacking, where the reason has more than one meaning", "text"),
    ("way_out", TEXT, "what would let them count", "text"),
)

EFFECTS = table_schema(
    "effects",
    ("variable", TEXT, "variable of the causal model", "name"),
    (
        "layer",
        INT,
        "layer, counted from 0; null for what is of no layer (0 in runs before 2026-11-29)",
        "index",
    ),
    ("component", TEXT, "which activation, e.g. residual", "name"),
    (
        "head",
        INT,
        "head of a per-head component, counted from 0; null for the whole vector",
        "index",
    ),
    ("position", TEXT, "named position", "name"),
    (
        "units",
        TEXT,
        "the unit, a whole vector, with its source site if it has another",
        "JSON",
    ),
    (
        "effect",
        REAL,
        "how much of the lead of the base's answer an interchange would move, to first order; null "
        "where it cannot be done",
        "share",
    ),
    (
        "pairs",
        INT,
        "fit pairs, of those that the variable changes, of which it is the mean",
        "pairs",
    ),
)

FAILURES = table_schema(
    "failures",
    ("intervention", TEXT, "id of the intervention; null where the whole task failed", "id"),
    ("block", INT, "block within the split; null where it cannot be told", "index"),
    ("attempt", INT, "attempts of the task before this one; null for Lost", "count"),
    (
        "error_type",
        TEXT,
        "class of the exception; Lost for a lost worker, Conflict for a repeat that said otherwise",
        "name",
    ),
    ("message", TEXT, "text of the exception", "text"),
    ("traceback", TEXT, "traceback, as Python prints it", "text"),
    ("node", TEXT, "machine that it happened on", "name"),
    ("actor", TEXT, "process that it happened in", "name"),
)


TABLES: dict[str, pa.Schema] = {
    "hypotheses": HYPOTHESES,
    "observations": OBSERVATIONS,
    "effects": EFFECTS,
    "fits": FITS,
    "sets": SETS,
    "dropped": DROPPED,
    "verdicts": VERDICTS,
    "failures": FAILURES,
}
