"""The Arrow schemas of the tables of evidence: what was measured, fit, dropped and what failed,
with meaning and unit of each column.

Invariants: those of `schemas`.
"""

import pyarrow as pa

from raysearch.store.table_schema import IDS, INT, REAL, TEXT, table_schema

_SCORES = pa.map_(TEXT, pa.map_(TEXT, pa.list_(REAL)))

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
    (
        "part",
        INT,
        "part of the test pairs that the block is of, as in verdicts; null in runs before "
        "2026-11-30",
        "index",
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

SELECTION = table_schema(
    "selection",
    ("hypothesis", TEXT, "id of the hypothesis", "id"),
    (
        "selected",
        INT,
        "hypotheses that the search accepted, controls apart; null unless this one is, and until "
        "all have a verdict",
        "count",
    ),
    (
        "fcr_level",
        REAL,
        "level of the interval from fcr_low to fcr_high, corrected for the selection of what was "
        "accepted (e-BY): of all accepted hypotheses, the share whose interval misses is expected "
        "to be at most 5 %",
        "share",
    ),
    ("fcr_low", REAL, "lower end of that interval of what iia is", "share"),
    ("fcr_high", REAL, "upper end of that interval", "share"),
    (
        "fdr_verdict",
        TEXT,
        "accept: e-BH accepts it too, by the final e-values of all, at a false discovery rate of "
        "test.false_accept; null else",
        "name",
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
