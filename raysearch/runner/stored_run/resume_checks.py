"""Checks before a run is resumed, and the job's files that the run keeps.

Invariants: verdicts of another model, another job or another encoding do not mix with those that
are there; what a job brought to a cluster is in its run folder too, for the job's own folder ends
with it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from raysearch.cluster.job_environment import job_environment
from raysearch.core.events import Encoded, Opened
from raysearch.core.evidence_version import EVIDENCE_VERSION
from raysearch.errors import ResumeError, StoreError
from raysearch.job import Job
from raysearch.job.file_keys import FILES, Away, none_away
from raysearch.job.job_files import kept_beside
from raysearch.proposers.registry import installed_proposers
from raysearch.runner.resolution.given_objects import GivenObjects
from raysearch.runner.resolution.resolve import resolve
from raysearch.runner.resolution.resolved_job import ResolvedJob
from raysearch.storage.digests_json import read_digests
from raysearch.storage.folder import Folder
from raysearch.storage.local import LocalFolder
from raysearch.storage.uris import without_credentials
from raysearch.store.journal import driver_of, drivers
from raysearch.store.pairs_table import PairsTable, pairs_digest
from raysearch.store.progress_file import read_progress
from raysearch.store.run_folder import JOB_FILE, RunFolder
from raysearch.tracking.uris import tracking_uri
from raysearch.viewer.page import FILE as PAGE


def check_version(run: RunFolder) -> None:
    """Raises: ResumeError where the run was begun by a raysearch whose verdicts are not ours."""
    if run.info.evidence_version != EVIDENCE_VERSION:
        raise ResumeError(
            f"run {run.info.id} has evidence version {run.info.evidence_version}, this raysearch "
            f"has {EVIDENCE_VERSION}: their verdicts do not mix; resume it with the raysearch that "
            "began it, or submit the job again"
        )


def check_journal(run: RunFolder) -> None:
    """Raises: ResumeError where the journal, or that of a driver which has written a part of a
    table or counted its search, is lost: a resume would delete what was found and search again."""
    found = drivers(run.journal)
    lost = sorted(_writers(run) - set(found)) if found else []
    if lost:
        raise ResumeError(
            f"{run.journal.at(lost[0]).place}: this part of the journal is lost, though the driver "
            f"of that name has written to the run: a resume would search again what it held; "
            f"restore it from a copy, or submit the job again"
        )
    if found:
        return
    there = [f"tables/{name}" for name in run.tables.folders() if run.tables.at(name).names()]
    there += [PAGE] if run.folder.exists(PAGE) else []
    if there:
        raise ResumeError(
            f"{run.journal.place}: the journal is lost, though {', '.join(there[:3])} "
            f"{'is' if len(there) == 1 else 'are'} there: a resume would delete what was found and "
            f"search again; restore the journal from a copy, or submit the job again"
        )


def sent_with(job_file: Path) -> Path | None:
    """Returns the folder that was sent along with a job on a cluster, where the driver and its
    workers run."""
    folder = job_file.resolve().parent
    return folder if job_environment() is not None and (folder / FILES).is_dir() else None


def _writers(run: RunFolder) -> set[str]:
    """Returns the names of the drivers that the run's files name."""
    progress, digests = read_progress(run.folder), read_digests(run.folder)
    parts = (file.rpartition("/")[2] for file in (digests.files if digests else ()))
    named = {driver for part in parts if (driver := driver_of(part)) is not None}
    return named | ({progress.driver} if progress else set())


def keep_files(sent: Path, run: RunFolder) -> None:
    """Copies what was sent along into the run folder. Raises: StoreError where that cannot be
    written."""
    for path in sorted(p for p in (sent / FILES).rglob("*") if p.is_file()):
        run.folder.at(path.parent.relative_to(sent).as_posix()).write(path.name, path.read_bytes())


@contextmanager
def files_of(run: RunFolder) -> Iterator[Path | None]:
    """Yields the folder on this machine with the files that came along with the run's job; None if
    none did. Raises: StoreError."""
    if FILES not in run.folder.folders():
        yield None
    elif isinstance(run.folder, LocalFolder):
        _check_no_links(run.folder.path / FILES)
        yield run.folder.path
    else:
        with TemporaryDirectory(prefix="raysearch-") as scratch:
            _fetch(run.folder.at(FILES), LocalFolder(Path(scratch) / FILES))
            yield Path(scratch)


def _check_no_links(folder: Path) -> None:
    """Raises: StoreError for a link: nobody who keeps files makes one, and whoever else may write
    there could have this driver read, and send along, a file that is not theirs."""
    for path in (folder, *folder.rglob("*")):
        if path.is_symlink():
            raise StoreError(
                f"{path}: is a link, and none is followed in a run; put what it leads to in its "
                f"place"
            )


def stored_job(run: RunFolder, files: Path | None, away: Away = none_away) -> Job:
    """Returns the job that the run began with; its paths are looked for in `files`, except those
    that are `away`. Raises: ResumeError where job.yaml was edited since, in what changes an
    answer."""
    where = run.folder.shown(JOB_FILE)
    job = Job.read(run.job_text, where, files, away)
    if (job if files is None else kept_beside(job, files)).digest() != run.info.job_digest:
        raise ResumeError(
            f"{where}: was edited since the run began, and its verdicts would not mix with those "
            "to come; put it back (only name and resources may change), or submit it as a new job"
        )
    return job


def check_same(run: RunFolder, resolved: ResolvedJob, stored: PairsTable, opened: Opened) -> None:
    """Raises: ResumeError where the model here is not the one that the run began with."""
    here = opened.facts.digest
    check_digest(run, resolved, here)
    use = resolved.job.propose.use
    named = [
        *resolved.job.space.sae_paths,
        *([use] if resolved.job.propose.file or use in installed_proposers() else []),
    ]
    if named and resolved.hash(pairs_digest(stored.pairs), here) != run.info.job_hash:
        raise ResumeError(
            f"run {run.info.id}: a sparse autoencoder or proposer that the job names "
            f"({', '.join(named)}), or another of its "
            "files, was changed since it began; put the old file back, or submit the job again"
        )
    known = stored.encoded
    if known is not None and not _as_before(known, opened.encoded):
        raise ResumeError(
            f"run {run.info.id}: {resolved.job.model.path} sees the pairs otherwise than when it "
            f"began (its tokenizer, or its positions); "
            "use the transformers version of its run.json, or submit the job again"
        )


def _as_before(known: tuple[Encoded, ...], here: tuple[Encoded, ...]) -> bool:
    """Says whether the pairs that both have, at least those of the beginning, are the same."""
    shared = {e.index for e in known} & {e.index for e in here}
    before = [e for e in known if e.index in shared]
    return before == [e for e in here if e.index in shared]


def check_digest(run: RunFolder, resolved: ResolvedJob, here: str) -> None:
    """Raises: ResumeError for the digest of another model than the run's."""
    there = run.info.model_digest
    if here != there:
        raise ResumeError(
            f"run {run.info.id} began with a model of digest {(there or 'none')[:12]}, "
            f"{resolved.job.model.path} has {here[:12]}: "
            "their outputs do not mix; put the old model back, or submit the job again"
        )


def check_given(
    run: RunFolder, resolved: ResolvedJob, stored: PairsTable, given: GivenObjects
) -> None:
    """Raises: ResumeError for a model that the run was given as an object and is not here, or the
    other way round; for a problem that does not draw the run's pairs."""
    began, name = resolved.job.model, run.info.id
    if began.is_given and given.model is None:
        raise ResumeError(
            f"run {name} began with {began.path}, a model that was given as an object (digest "
            f"{(run.info.model_digest or '')[:12]}); "
            f"no file has it: give it again, in Python: rs.resume({run.place!r}, model=model)"
        )
    check_objects(run, resolved, stored, given)


def check_objects(
    run: RunFolder, resolved: ResolvedJob, stored: PairsTable, given: GivenObjects
) -> None:
    """Raises: ResumeError for an object that is not what the run began with."""
    began, name = resolved.job.model, run.info.id
    if given.model is not None and given.model.source is None and not began.is_given:
        raise ResumeError(
            f"run {name} began with the model at {began.path}, which is read from there; leave "
            f"model out"
        )
    if given.problem is not None:
        drawn = resolve(resolved.job, given).pairs
        if pairs_digest(drawn) != pairs_digest(stored.pairs):
            raise ResumeError(
                f"run {name}: the problem {given.problem.name!r} draws other pairs than the run "
                "has; leave it out (the pairs are kept), or begin a new run"
            )


def tracking_of(run: RunFolder, given: str) -> str | None:
    """Returns the tracking URI of a run that goes on: its own, with the credentials that
    --tracking-uri (or its variable) has for it."""
    if run.info.tracking_uri is None or not given:
        return run.info.tracking_uri
    uri = tracking_uri(given)
    is_own = uri is not None and without_credentials(uri) == run.info.tracking_uri
    return uri if is_own else run.info.tracking_uri


def _fetch(folder: Folder, to: LocalFolder) -> None:
    for name in folder.names():
        to.write(name, folder.read(name))
    for name in folder.folders():
        _fetch(folder.at(name), to.at(name))
