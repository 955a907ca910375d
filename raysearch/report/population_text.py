"""Says in words what the verdicts of a run are about, and names the population of runs of before.

Invariants: the words are those of core/population.py; a run that did not write its population has
the one that its pairs were drawn from.
"""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from raysearch.core.population import PopulationName, about

COLUMNS = ("population", "population_size")
"""The columns that say it."""


def population_words(job: Mapping[str, Any], found: pa.Table) -> str:
    """Returns the population of a run's verdicts in words, with its size and its screen.

    Args:
        job: the keys of the job.
        found: its verdicts, as that table or in `results`.
    """
    sizes = pc.unique(_decided(found)["population_size"]).to_pylist()
    pairs = job.get("pairs") or {}
    return about(
        population_name(job, found),
        sizes[0] if len(sizes) == 1 else None,
        pairs.get("disjoint") or (),
        pairs.get("kinds", "change"),
        pairs.get("solved_only", True),
    )


def population_name(job: Mapping[str, Any], found: pa.Table) -> PopulationName:
    """Returns the name of the population; arguments as in `population_words`."""
    decided = _decided(found)
    return decided["population"][0].as_py() if decided.num_rows else earlier_population(job)


def _decided(found: pa.Table) -> pa.Table:
    chosen = found.select(COLUMNS)
    return chosen.filter(pc.field("population").is_valid())


def earlier_population(job: Mapping[str, Any]) -> PopulationName:
    """Returns the population of a run that did not write it: its domain was divided before pairs
    were drawn, whether anything was trained or not.
    """
    if (job.get("test") or {}).get("claim") != "sampler":
        return "these_pairs"
    return "these_values" if (job.get("pairs") or {}).get("disjoint") else "test_part"
