"""A run as MLflow gets it: params and tags when it begins, files, tables and child runs when it ends.

Invariants: what is given is read from the run folder, so that a live run and a replay give the same.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from raysearch.cluster.inside import inside
from raysearch.folders.fetch import on_this_machine
from raysearch.folders.parquet import parts_that_count
from raysearch.report.children import accepted
from raysearch.report.page import FILE as PAGE
from raysearch.report.results import results
from raysearch.running.question import Question
from raysearch.search.events import ModelFacts
from raysearch.store.mlflow_mirror import Child, MlflowMirror, flatten
from raysearch.store.run_folder import JOB_FILE, RunFolder


def mirror_of(
    run: RunFolder, question: Question, facts: ModelFacts, pairs_digest: str, uri: str, **more: Any
) -> MlflowMirror:
    """The mirror of a run at `uri`. `more`: of a replay (MlflowMirror has it)."""
    job = question.job.model_dump(mode="json", by_alias=True)
    params = {**flatten(job), "model_digest": facts.digest, "pairs_digest": pairs_digest}
    tags = {
        "raysearch.run": run.info.id,
        "raysearch.job_hash": run.info.job_hash,
        "raysearch.store": run.info.store_uri,
    }
    if (here := inside()) is not None:
        tags["raysearch.submission_id"] = here.submission_id
    experiment = f"raysearch/{question.job.name}"
    return MlflowMirror(uri, experiment, params, tags, run_id=run.info.mlflow_run_id, run_name=run.info.id, **more)


def give(
    mirror: MlflowMirror,
    status: str,
    run: RunFolder,
    children: int,
    pictures: Sequence[str],
    seconds: float,
    say: Callable[[], None] = lambda: None,
    remember: bool = True,
) -> bool:
    """Gives the mirror what the run has left, and waits for it up to `seconds`; whether all arrived. At most so many `children`.

    `say`: called before the wait. `remember`: write the id of MLflow's run into run.json.
    """
    tables = {}
    given: list[Child] = []
    with TemporaryDirectory(prefix="raysearch-") as folder:
        scratch = Path(folder)
        artifacts = _artifacts(run, status, pictures, scratch)
        if status == "done":
            for a in accepted(run.folder, children):
                files = on_this_machine(run.interventions, a.files, scratch)
                given.append(Child(a.hypothesis, a.title, a.params, a.metrics, a.course, files))
            alignment, everything = results(run.folder, accepted=True), results(run.folder)
            tables = {"alignment": alignment.to_pydict(), "results": everything.to_pydict()}
        say()
        arrived = mirror.close(status, artifacts, tables, seconds, given)
    if mirror.run_id and remember:  # a short search can end before MLflow has made its run
        run.update(mlflow_run_id=mirror.run_id)
    return arrived


def _artifacts(run: RunFolder, status: str, pictures: Sequence[str], scratch: Path) -> list[Path | tuple[Path, str]]:
    """The files that MLflow is given, each with the folder of its run to put it in; copied to `scratch` where the run is on no disk."""
    artifacts: list[Path | tuple[Path, str]] = [*on_this_machine(run.folder, (JOB_FILE, "run.json"), scratch)]
    artifacts += [(p, "heatmaps") for p in on_this_machine(run.heatmaps, pictures, scratch)]
    if status == "done":
        artifacts += on_this_machine(run.folder, (PAGE,), scratch)
        for name in run.tables.folders():
            table = run.tables.at(name)
            parts = parts_that_count(table.names())
            artifacts += [(p, f"tables/{name}") for p in on_this_machine(table, parts, scratch)]
    return artifacts
