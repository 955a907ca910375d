"""A run as a tracker gets it: params and tags when it begins, files, tables and child runs when it
ends.

Invariants: what is given is read from the run folder, so that a live run and a replay give the
same.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from raysearch.causal import SPLITS
from raysearch.cluster.job_environment import job_environment
from raysearch.core.model_facts import ModelFacts
from raysearch.markdown_text import literal
from raysearch.report.claim import claim_words, continued_words, read_claim
from raysearch.report.labels import score_label
from raysearch.report.run_results import RunResults
from raysearch.runner.resolution.resolved_job import ResolvedJob
from raysearch.storage.local_copy import on_this_machine
from raysearch.storage.parquet import parts_that_count
from raysearch.store.job_file import read_job
from raysearch.store.pairs_schema import PAIRS
from raysearch.store.pairs_table import FILE as PAIRS_FILE
from raysearch.store.run_folder import JOB_FILE, RunFolder
from raysearch.tracking.child_runs import first_accepted
from raysearch.tracking.description import best_means, describe
from raysearch.tracking.registry import tracker_of
from raysearch.tracking.tracker import Artifact, ChildRun, PairsInput, TrackedRun, Tracker, flatten
from raysearch.viewer.page import FILE as PAGE
from raysearch.viewer.page import FOLDER as BESIDE
from raysearch.viewer.page import page
from raysearch.viewer.run_state import model_name

MOST_PARTS = 40
"""Parts of a table that a tracker is given; of one with more it gets the place. A part has at most
50,000 rows."""


def start_tracking(
    run: RunFolder,
    resolved: ResolvedJob,
    facts: ModelFacts,
    pairs_digest: str,
    uri: str,
    **replay: Any,
) -> Tracker:
    """Begins to show a run in the tracker of `uri`. `replay`: `at` and `again` of a TrackedRun.
    Raises: JobError where the tracker's package is broken."""
    job = resolved.job.model_dump(mode="json", by_alias=True)
    params = {**flatten(job), "model_digest": facts.digest, "pairs_digest": pairs_digest}
    if facts.commit is not None:
        params["model_commit"] = facts.commit
    tracked = TrackedRun(
        uri=uri,
        experiment=f"raysearch/{resolved.job.name}",
        params=params,
        tags=_tags(run, resolved, model_name(job) or ""),
        run_id=run.info.tracking_run_id,
        name=run.info.id,
        pairs=_pairs(run, resolved, pairs_digest),
        description=literal(
            claim_words(
                job,
                resolved.about,
                run.info.k or 0,
                resolved.ablates,
                run.info.continued,
                resolved.population.name,
            )
        ),
        variables=resolved.variables,
        source=_problem(resolved),
        commit=run.info.versions.get("commit", ""),
        **replay,
    )
    return tracker_of(uri).open(tracked)


def _tags(run: RunFolder, resolved: ResolvedJob, model: str) -> dict[str, str]:
    tags = {
        "raysearch.run": run.info.id,
        "raysearch.job_hash": run.info.job_hash,
        "raysearch.store": run.info.store_uri,
        "raysearch.model": model,
        "raysearch.problem": _problem(resolved),
        "raysearch.variables": ", ".join(resolved.variables),
        "raysearch.proposer": resolved.job.propose.use,
    }
    if words := continued_words(run.info.continued):
        tags["raysearch.continued"] = words
    if (here := job_environment()) is not None:
        tags["raysearch.submission_id"] = here.submission_id
    return tags


def _problem(resolved: ResolvedJob) -> str:
    problem = resolved.job.problem
    return Path(problem.use or problem.pairs or "").name


def _pairs(run: RunFolder, resolved: ResolvedJob, digest: str) -> PairsInput:
    """Returns the run's pairs as the tracker shows them, by the name of the sampler or file."""
    return PairsInput(
        name=_problem(resolved),
        digest=digest,
        place=run.folder.shown(PAIRS_FILE),
        columns={field.name: str(field.type) for field in PAIRS},
        counts={split: sum(p.split == split for p in resolved.pairs) for split in SPLITS},
    )


def finish_tracking(
    tracker: Tracker,
    status: str,
    run: RunFolder,
    children: int,
    pictures: Sequence[str],
    results: RunResults | None = None,
    seconds: float | None = None,
    say: Callable[[], None] = lambda: None,
    remember: bool = True,
) -> bool:
    """Gives the tracker what the run has left, with at most so many `children`, waits for it up to
    `seconds` (None: as long as the tracker does), and returns whether all arrived.

    `results`: those of a run that is done. `say`: called before the wait. `remember`: write the
    tracker's id of the run into run.json.
    """
    tables = {}
    given: list[ChildRun] = []
    with TemporaryDirectory(prefix="raysearch-") as folder:
        scratch = Path(folder)
        artifacts = _artifacts(run, results, pictures, scratch)
        if results is not None:
            for a in first_accepted(run.folder, results, children):
                files = on_this_machine(run.interventions, a.files, scratch)
                given.append(ChildRun(a.hypothesis, a.title, a.params, a.metrics, a.course, files))
            tables = {
                "alignment": results.accepted.table.to_pydict(),
                "results": results.hypotheses.table.to_pydict(),
            }
            score = score_label(read_job(run.folder)).name
            tracker.describe(describe(results, read_claim(run.folder), score))
            tracker.show_best(best_means(results))
        say()
        arrived = tracker.close(status, artifacts, tables, seconds, given)
    if tracker.run_id and remember:  # a short search can end before the tracker has made its run
        run.update(tracking_run_id=tracker.run_id)
    return arrived


def _artifacts(
    run: RunFolder, results: RunResults | None, pictures: Sequence[str], scratch: Path
) -> list[Artifact]:
    """Returns the files for the tracker, each with the folder of the tracker's run that it goes
    into, if not the topmost; they are copied to `scratch` where the run is on no disk."""
    artifacts: list[Artifact] = [*on_this_machine(run.folder, (JOB_FILE, "run.json"), scratch)]
    artifacts += [(p, "heatmaps") for p in on_this_machine(run.heatmaps, pictures, scratch)]
    if results is not None:
        if run.folder.at(BESIDE).names():  # a page that stands alone, for it is shown alone
            (alone := scratch / PAGE).write_text(page(run.folder, results), encoding="utf-8")
            artifacts.append(alone)
        else:
            artifacts += on_this_machine(run.folder, (PAGE,), scratch)
        for name in run.tables.folders():
            table = run.tables.at(name)
            parts = parts_that_count(table.names())
            if len(parts) > MOST_PARTS:
                (words := scratch / f"{name}.txt").write_text(
                    f"{len(parts)} parts at {table.place}\n"
                )
                artifacts.append((words, "tables"))
            else:
                artifacts += [(p, f"tables/{name}") for p in on_this_machine(table, parts, scratch)]
    return artifacts
