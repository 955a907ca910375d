"""What MLflow is given of a run: at its beginning and at its end.

Invariants: a file of a run that is on no disk is copied for MLflow, which reads nothing but disks.
"""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from raysearch.cluster.inside import inside
from raysearch.folders.fetch import on_this_machine
from raysearch.report.children import accepted as accepted_ones
from raysearch.report.page import FILE as PAGE
from raysearch.report.results import results
from raysearch.running.front import Front
from raysearch.running.question import Question
from raysearch.search.events import Opened
from raysearch.store.mlflow_mirror import Child, MlflowMirror, flatten
from raysearch.store.run_folder import JOB_FILE, RunFolder


def mirror_of(run: RunFolder, question: Question, opened: Opened, digest: str, uri: str | None) -> MlflowMirror | None:
    """The run's mirror at `uri`; None where there is to be none."""
    if uri is None:
        return None
    job = question.job.model_dump(mode="json", by_alias=True)
    params = {**flatten(job), "model_digest": opened.facts.digest, "pairs_digest": digest}
    tags = {
        "raysearch.run": run.info.id,
        "raysearch.job_hash": run.info.job_hash,
        "raysearch.store": run.info.store_uri,
    }
    if (here := inside()) is not None:
        tags["raysearch.submission_id"] = here.submission_id
    experiment = f"raysearch/{question.job.name}"
    return MlflowMirror(uri, experiment, params, tags, run_id=run.info.mlflow_run_id, run_name=run.info.id)


def close_mirror(
    mirror: MlflowMirror | None,
    status: str,
    run: RunFolder,
    front: Front,
    children_at_most: int,
    pictures: Sequence[str] = (),
) -> None:
    """Gives the mirror what the run has left, and waits for it (a bounded time)."""
    if mirror is None:
        return
    tables = {}
    children: list[Child] = []
    with TemporaryDirectory(prefix="raysearch-") as folder:
        scratch = Path(folder)
        artifacts = _artifacts(run, status, pictures, scratch)
        if status == "done":
            for a in accepted_ones(run.folder, children_at_most):
                files = on_this_machine(run.interventions, a.files, scratch)
                children.append(Child(a.hypothesis, a.title, a.params, a.metrics, a.course, files))
            alignment, everything = results(run.folder, accepted=True), results(run.folder)
            tables = {"alignment": alignment.to_pydict(), "results": everything.to_pydict()}
        front.say("mlflow    finishing")
        mirror.close(status, artifacts, tables, children=children)
    if mirror.run_id:  # a short search can end before MLflow has made its run
        run.update(mlflow_run_id=mirror.run_id)


def _artifacts(run: RunFolder, status: str, pictures: Sequence[str], scratch: Path) -> list[Path | tuple[Path, str]]:
    """The files that MLflow is given, each with the folder of its run to put it in; copied to `scratch` where the run is on no disk."""
    artifacts: list[Path | tuple[Path, str]] = [*on_this_machine(run.folder, (JOB_FILE, "run.json"), scratch)]
    artifacts += [(p, "heatmaps") for p in on_this_machine(run.heatmaps, pictures, scratch)]
    if status == "done":
        artifacts += on_this_machine(run.folder, (PAGE,), scratch)
        for name in run.tables.folders():
            table = run.tables.at(name)
            parts = [part for part in table.names() if part.endswith(".parquet")]
            artifacts += [(p, f"tables/{name}") for p in on_this_machine(table, parts, scratch)]
    return artifacts
