"""Says of the best hypothesis of each variable without an accepted one why it was not accepted.

Invariants: an undecided one has the words of its row's reason, as `results` shows them; a reject is
laid to the test that rejected.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from raysearch.report.labels import score_label
from raysearch.report.row_sequence import TableRow
from raysearch.report.verdict_pairs import is_ablation


def near_misses(
    variables: Sequence[int], verdicts: Sequence[str | None], means: Sequence[float | None]
) -> Iterator[int]:
    """Yields the place of the best hypothesis of each variable that has none accepted, as the page
    finds it: by the mean, the first among equals.

    Args:
        variables: number of the variable of each hypothesis.
        verdicts: of each, in order.
        means: of each; None where it was not measured.
    """
    best: dict[int, tuple[bool, float, int]] = {}
    for i, (variable, verdict, mean) in enumerate(zip(variables, verdicts, means, strict=True)):
        if mean is None or verdict == "failed":
            continue
        found = (verdict == "accept", round(mean, 6), -i)  # as a page has it (viewer/page_json.py)
        best[variable] = max(found, best.get(variable, found))
    return (-i for accepted, _, i in best.values() if not accepted)


def why(row: TableRow, job: Mapping[str, Any]) -> str:
    """Returns why a hypothesis was not accepted, in words; empty where its row does not say it."""
    if row["verdict"] == "undecided":
        return row["reason"] or ""
    if row["verdict"] != "reject":
        return ""
    test, score = job.get("test") or {}, score_label(job).name
    tau = test.get("threshold")
    keep_tau = test.get("keep_threshold") or tau
    keep, high = row["keep_iia"], row["high"]
    tests_keep = (job.get("pairs") or {}).get("kinds") == "both"
    if tests_keep and None not in (keep, high, tau) and keep < keep_tau and high >= tau:
        shown = "it changes answers that should stay"
        if is_ablation(row):
            shown = "answers stay without the site"
        return (
            f"its keep pairs show that {shown}: {score} {keep:.3f} on "
            f"{row['keep_n']} keep pairs, below the threshold {keep_tau:g}"
        )
    return "" if tau is None else f"its pairs show that it is below the threshold {tau:g}"
