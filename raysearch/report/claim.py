"""The claim of a run in a few sentences, as the command line, a notebook and a tracker show it.

Invariants: population, threshold, error level and K stand in each; what was not shown does too.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from raysearch.core.claims import ABLATION, BEYOND, INTERCHANGE, mean_words, not_shown, operations
from raysearch.core.population import PopulationName
from raysearch.proposers.registry import family_words
from raysearch.report.labels import VERDICT_WORDS, score_label
from raysearch.report.population_text import population_name, population_words
from raysearch.report.results_table import read_table
from raysearch.report.run_facts import ChartFacts
from raysearch.storage.open_folder import FolderLike, open_folder
from raysearch.store.job_file import read_job
from raysearch.store.run_folder import RunFolder


def error_words(test: Mapping[str, Any]) -> str:
    """Says what `test.false_accept` of a job bounds, and at which value."""
    level = f"{test['false_accept']:g}"
    if test.get("control") == "fdr":
        return (
            f"the expected share of false accepts among all accepts (false discovery rate) is at "
            f"most {level}, which bounds no single accept"
        )
    return f"the chance of any false accept is at most {level}"


def claim_words(
    job: Mapping[str, Any],
    population: str,
    hypotheses: int,
    ablates: Collection[bool] = (),
    continued: Mapping[str, int] | None = None,
    name: PopulationName = "sampler",
    verdicts: Collection[str | None] = (),
) -> str:
    """Returns what an accept says, at which level, what it does not say, and what its intervals
    are. `verdicts`: those of the hypotheses so far; empty: nothing is said of them. Other arguments
    as in `claim_sentences`."""
    said = claim_sentences(job, population, hypotheses, ablates, continued, name)
    intervals = "Intervals from low to high hold for each hypothesis by itself at 95 %"
    if verdicts and "accept" not in verdicts:
        return f"{_none_accepted(verdicts)} An accept would say: {' '.join(said)} {intervals}."
    return (
        f"Accepted: {' '.join(said)} {intervals}; of those from fcr_low to fcr_high, corrected for "
        "the selection of what was accepted, at most 5 % are expected to miss."
    )


def _none_accepted(verdicts: Collection[str | None]) -> str:
    """Says that nothing was accepted, and how many hypotheses have each other verdict."""
    counts = Counter(verdicts)
    others = [f"{counts[v]} {word}" for v, word in VERDICT_WORDS.items() if counts[v]]
    so_far = "is accepted yet" if counts[None] else "was accepted"
    return f"No hypothesis {so_far}: {', '.join(others)}."


def claim_sentences(
    job: Mapping[str, Any],
    population: str,
    hypotheses: int,
    ablates: Collection[bool] = (),
    continued: Mapping[str, int] | None = None,
    name: PopulationName = "sampler",
) -> list[str]:
    """Returns what an accept says, at which level, and what it does not say, and what is wrong with
    the means.

    Args:
        job: the keys of the job.
        population: what the verdicts are about, in words.
        hypotheses: how many were proposed, controls apart; 0 before that is known.
        ablates: of each hypothesis, or unit, whether it is an ablation; empty: none is.
        continued: as in `RunInfo`.
        name: that of the population.
    """
    test = job["test"]
    tau = test["threshold"] - (test.get("indifference") or 0.0)
    family = "over all hypotheses that it may propose"
    if hypotheses:
        family = family_words((job.get("propose") or {}).get("use"), hypotheses)
    words = continued_words(continued)
    return [
        f"{_shown(ablates, score_label(job).name, tau)} {population}{_kept(job)}; "
        f"{error_words(test)}, {family}.",
        *([f"{words[0].upper()}{words[1:]}."] if words else []),
        f"It does not say {not_shown(ablates)}, nor anything {BEYOND[name]}.",
        mean_words(test, bool(continued)),
    ]


def figure_claim(facts: ChartFacts, ablates: Collection[bool]) -> list[str]:
    """Returns what the outlined cells of a figure say, and what is wrong with its means.

    A run whose job does not say its level has the threshold and the population alone.
    """
    use = {"use": "fixed" if facts.fixed else "sequential"}
    test = {**(facts.job.get("test") or {}), **use}
    tau = "" if facts.threshold is None else f" at threshold τ = {facts.threshold:g}"
    if "false_accept" not in test or facts.threshold is None:
        of = f", about {facts.population}" if facts.population else ""
        return [f"Outlined: accepted{tau}{of}.", mean_words(test, bool(facts.continued))]
    first, *rest = claim_sentences(
        {**facts.job, "test": test},
        facts.population or "its pairs",
        facts.hypotheses,
        ablates,
        facts.continued,
        facts.population_name,
    )
    return [f"Outlined: accepted{tau}: {first}", *rest]


def _kept(job: Mapping[str, Any]) -> str:
    """Returns what an accept shows of keep pairs, where they decide too."""
    test = job["test"]
    if (job.get("pairs") or {}).get("kinds") != "both":
        return ""
    tau = (test.get("keep_threshold") or test["threshold"]) - (test.get("indifference") or 0.0)
    return f", and above {tau:g} on those that it leaves alone"


def _shown(ablates: Collection[bool], score: str, tau: float) -> str:
    """Returns what is above the threshold, and what that shows."""
    above = {
        INTERCHANGE: f"{score} above {tau:g}",
        ABLATION: f"which ablation takes away on a share above {tau:g}",
    }
    found = [f"{words.shown}, {above[words]}" for words in operations(ablates)]
    if len(found) > 1:
        return f"{'; or '.join(found)}; on"
    return f"{found[0]} {'of' if True in ablates else 'on'}"


def continued_words(continued: Mapping[str, int] | None) -> str:
    """Returns how often a run was continued, and by how many pairs; empty if it was not."""
    if not continued:
        return ""
    pairs = ", ".join(map(str, continued.values()))
    times = "once" if len(continued) == 1 else f"{len(continued)} times"
    return (
        f"continued {times}, by up to {pairs} further test pairs for each hypothesis that was "
        "undecided, within the same chance of error"
    )


def read_claim(run: FolderLike) -> str:
    """Returns the claim of a run as its folder has it. Raises: StoreError."""
    folder = open_folder(run)
    job, table = read_job(folder), read_table(run, "hypotheses", ("hypothesis", "control", "units"))
    verdicts = read_table(
        run, "verdicts", ("hypothesis", "verdict", "population", "population_size")
    )
    population, name = population_words(job, verdicts), population_name(job, verdicts)
    units = {r["hypothesis"]: r["units"] for r in table.to_pylist() if r["control"] is None}
    continued = RunFolder.open(folder).info.continued
    reached = dict(zip(*(verdicts[c].to_pylist() for c in ("hypothesis", "verdict")), strict=True))
    return claim_words(
        *(job, population, len(units), ablations(units.values()), continued, name),
        [reached.get(hypothesis) for hypothesis in units],
    )


def ablations(units: Iterable[str | None]) -> list[bool]:
    """Returns which hypotheses are ablations, by the column `units`."""
    return ['"operation"' in (of or "") for of in units]
