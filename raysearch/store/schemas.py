"""The Arrow schemas of a run's tables, with meaning and unit of each column.

Invariants: users' scripts depend on the names, so a column is never renamed or given another type
without a new schema_version; columns that only later versions fill exist and are null.
"""

import pyarrow as pa

from raysearch.store.evidence_schemas import (
    DROPPED,
    EFFECTS,
    FAILURES,
    FITS,
    OBSERVATIONS,
    SELECTION,
    SETS,
)
from raysearch.store.table_schema import INT, REAL, TEXT, table_schema

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
        "share of keep pairs whose output is the base's answer, or their mean score; of an "
        "ablation, whose output is no longer the base's answer; null where keep_n is 0",
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
    (
        "claim",
        TEXT,
        "how its pairs are taken: these_pairs or sampler; of an ablation after 'necessity, '",
        "name",
    ),
    (
        "population",
        TEXT,
        "what the verdict is about, and its bound and interval hold for: sampler, not_trained_on, "
        "not_tested_before, "
        "these_values, new_values, these_pairs; test_part: the part of the domain that was set "
        "apart",
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
    ("reason", TEXT, "why it failed, or ended undecided before its last pair; null else", "text"),
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
        "chance of a false accept that the verdict spends: test.false_accept times the weight of "
        "this hypothesis; null in runs before 2026-11-29",
        "share",
    ),
    (
        "part",
        INT,
        "part of the test pairs that the n pairs are of: later generations, and continuations of a "
        "fixed horizon, have parts of their own; null in runs before 2026-11-30",
        "index",
    ),
    (
        "holdout_distinct",
        INT,
        "different pairs among those of holdout_n; null unless accepted, and in runs before "
        "2026-11-30",
        "pairs",
    ),
)


TABLES: dict[str, pa.Schema] = {
    "hypotheses": HYPOTHESES,
    "observations": OBSERVATIONS,
    "effects": EFFECTS,
    "fits": FITS,
    "sets": SETS,
    "dropped": DROPPED,
    "verdicts": VERDICTS,
    "selection": SELECTION,
    "failures": FAILURES,
}
