"""A run from its job to its results: pool, run folder, ledger, mirror; begun anew or gone on with.

Invariants: no run folder is made before the model is loaded and the job has proved to fit it; whatever ends a search early, the
command that goes on with it is said, where going on can help.
"""

import os
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from rich.console import Console

from raysearch import driver
from raysearch.causal import SPLITS, Pair
from raysearch.cli.interrupt import INTERRUPTED, Interrupt
from raysearch.cli.mirrored import give, mirror_of
from raysearch.cli.progress import Watch
from raysearch.cli.question import Question, ask
from raysearch.cli.replayed import kept_question, plain_facts
from raysearch.cli.resources import shape_of
from raysearch.cli.show import print_controls, print_table
from raysearch.cluster.work import Work
from raysearch.errors import JobError, ResumeError, StoreError, TakenOverError
from raysearch.job import Job
from raysearch.report.beside import beside
from raysearch.report.heatmap import heatmaps
from raysearch.report.results import results
from raysearch.search.events import ModelFacts, Opened
from raysearch.search.notes import Snapshot
from raysearch.search.search import EVIDENCE_VERSION, Search
from raysearch.store.ledger import Ledger
from raysearch.store.mlflow_mirror import CLOSE_SECONDS, MlflowMirror
from raysearch.store.pairs_table import KeptPairs, pairs_digest, write_pairs
from raysearch.store.places import tracking_uri, without_credentials, writable_store
from raysearch.store.run_folder import RunFolder, find_run

FAILED_TOO_MANY = 3


@dataclass(frozen=True)
class Where:
    """What flags say: only where and how loud, never what."""

    store: str
    tracking_uri: str
    pool: str
    address: str | None
    fail_on_error: float
    quiet: bool
    no_color: bool
    mlflow_children: int = 20


class _Pool(driver.Pool, Protocol):
    def open(self) -> Opened: ...

    def show(self, run: str, snapshot: Snapshot) -> None: ...

    def close(self) -> None: ...


def begin(job_file: Path, sets: Sequence[str], where: Where) -> int:
    """A new run of a job; the exit code. Raises: RaysearchError in one line."""
    question = ask(Job.load(job_file, sets))
    root = writable_store(where.store)
    with Watch(where.quiet, where.no_color) as watch, _pool(question, where, watch) as pool:
        opened = pool.open()
        search = question.search(opened.facts, opened.encoded)
        _tell_model(opened, question, watch)
        digest = pairs_digest(question.pairs)
        uri = None if where.tracking_uri == "none" else tracking_uri(where.tracking_uri)
        run = RunFolder.create(
            root,
            name=question.job.name,
            job_hash=question.hash(digest),
            job_digest=question.job.digest(),
            job_text=question.job.to_yaml(),
            evidence_version=EVIDENCE_VERSION,
            tracking_uri=uri,
        )
        with run.lock():
            run.update(model_digest=opened.facts.digest, facts=plain_facts(opened.facts))
            write_pairs(run.folder, question.pairs, opened.encoded)
            return _search(run, search, pool, watch, where, _mirror(run, question, opened.facts, digest, uri))


def go_on(name: str, where: Where) -> int:
    """The run `name` from where its journal ends; the exit code. Raises: RaysearchError in one line."""
    run = find_run(where.store, name)
    with run.lock(), Watch(where.quiet, where.no_color) as watch:
        kept, question = kept_question(run)
        with _pool(question, where, watch) as pool:
            opened = pool.open()
            _check_same(run, question, kept, opened)
            run.update(facts=plain_facts(opened.facts))  # which runs of earlier versions lack
            search = question.search(opened.facts, opened.encoded)
            mirror = _mirror(run, question, opened.facts, pairs_digest(kept.pairs), _tracking_of(run, where))
            return _search(run, search, pool, watch, where, mirror)


def _search(
    run: RunFolder, search: Search, pool: _Pool, watch: Watch, where: Where, mirror: MlflowMirror | None
) -> int:
    """Drives the search to its end, or to an interrupt; the exit code."""
    # Before there is a journal, so that whoever sees it and interrupts is told how to go on.
    with Interrupt() as interrupt:
        ledger = Ledger(run, mirror)
        for line in ledger.said:
            watch.say(line)
        watch.say(f"run       {run.place}")
        began = time.monotonic()
        screening = True

        def show(snapshot: Snapshot) -> None:
            nonlocal screening
            ledger.snapshot(snapshot)
            pool.show(run.info.id, snapshot)
            if screening and snapshot.stage != "screening":
                screening = False
                _tell_screening(search, watch)
            watch(snapshot)
            interrupt.check()

        try:
            driver.replay(search, ledger.replay(), ledger)
            if ledger.past:
                watch.say(f"replayed  {ledger.past} events: {watch.words(search.snapshot())}")
            driver.drive(search, pool, ledger, show)
            ledger.snapshot(search.snapshot())
            seconds = time.monotonic() - began
            ledger.close("done")
        except KeyboardInterrupt:
            watch.stop()
            ledger.close("interrupted")
            _say_resume("interrupted", run, where)
            _close(mirror, "interrupted", run, watch, where)
            return INTERRUPTED
        except BaseException as e:
            watch.stop()
            _end_badly(e, ledger, run, where)
            if isinstance(e, StoreError) and mirror is not None:
                mirror.close("failed")  # and no files: the store would only refuse once more
            else:
                _close(mirror, "failed", run, watch, where)
            raise
        watch.stop()
        try:
            pictures = heatmaps(run.folder, run.heatmaps)
            code = _summary(run, search.snapshot(), seconds, watch, where, search.these_pairs)
            _close(mirror, "done", run, watch, where, pictures)
        except BaseException:
            if mirror is not None:
                mirror.close("done")  # the search is, whatever became of its pictures
            _say_resume("the search is done, its pictures and summary are not", run, where)
            raise
        return code


def _end_badly(error: BaseException, ledger: Ledger, run: RunFolder, where: Where) -> None:
    """Closes the books as far as that can be done. An error that a resume would only meet again gets no hint to resume."""
    if isinstance(error, StoreError):
        ledger.abandon()
    else:
        ledger.close("failed")
    if not isinstance(error, JobError | TakenOverError):
        _say_resume("failed", run, where)


def _close(
    mirror: MlflowMirror | None, status: str, run: RunFolder, watch: Watch, where: Where, pictures: Sequence[str] = ()
) -> None:
    """Gives the mirror what the run has left, and waits for it (a bounded time)."""
    if mirror is not None:
        give(
            mirror,
            status,
            run,
            where.mlflow_children,
            pictures,
            CLOSE_SECONDS,
            lambda: watch.say("mlflow    finishing"),
        )


def _say_resume(status: str, run: RunFolder, where: Where) -> None:
    flags = " --pool local" if where.pool == "local" else f" --address {where.address}" if where.address else ""
    print(f"raysearch: {status}; go on with: raysearch resume {shlex.quote(run.place)}{flags}", file=sys.stderr)


def _tell_screening(search: Search, watch: Watch) -> None:
    """How many pairs the model solves, and what is missing."""
    for split in SPLITS:
        screened, solved, wanted = search.screening.counts(split)
        if screened:
            used = len(search.screening.usable(split))
            short = f"; {wanted} were wanted" if used < wanted else ""
            watch.say(
                f"screened  {screened} {split} pairs: the model solves {solved / screened:.0%}, {used} are used{short}"
            )


def _summary(run: RunFolder, end: Snapshot, seconds: float, watch: Watch, where: Where, these_pairs: bool) -> int:
    watch.say(
        f"searched  {end.decided} hypotheses in {seconds:.1f} s: {end.accepted} accepted, {end.rejected} rejected, "
        f"{end.undecided} undecided, {end.failed} failed; {end.pairs} pairs evaluated"
    )
    if end.conflicts:
        watch.say(
            f"conflicts {end.conflicts} repeats said otherwise than what was counted; see {run.tables.at('failures').place}"
        )
    if not where.quiet:
        order = [(c, "ascending") for c in ("variable", "component", "position", "layer", "head")]
        accepted = results(run.folder, accepted=True).sort_by(order)
        claim = (
            "of the test pairs at hand, not of others like them" if these_pairs else "of pairs that the problem draws"
        )
        console = Console(width=None if sys.stdout.isatty() else 160, no_color=where.no_color or None)
        if accepted.num_rows:
            print_table(accepted, console, title=f"Alignment: accepted hypotheses (IIA {claim})")
            print_controls(beside(run.folder), console)
        else:
            console.print("Alignment: no hypothesis was accepted.")
        if end.undecided:
            watch.say(f"undecided raysearch results {shlex.quote(run.place)} --where \"verdict = 'undecided'\"")
        watch.say(f"heat maps {run.heatmaps.place}")
        watch.say(f"more      raysearch results {shlex.quote(run.place)}")
    if end.failed > where.fail_on_error * end.decided:
        print(
            f"raysearch: {end.failed} of {end.decided} hypotheses failed, more than --fail-on-error {where.fail_on_error:g}; "
            f"see {run.tables.at('failures').place}",
            file=sys.stderr,
        )
        return FAILED_TOO_MANY
    return 0


@contextmanager
def _pool(question: Question, where: Where, watch: Watch) -> Iterator[_Pool]:
    work = _work(question)
    resources = question.job.resources
    if where.pool == "local":
        from raysearch.cluster.local_pool import LocalPool, device_here

        if resources.replicas not in ("auto", 1):
            raise JobError(f"resources.replicas: {resources.replicas} need Ray; --pool local has one replica")
        watch.say(f"loading   {question.job.model.path}")
        yield LocalPool(work, device_here(resources.gpus))
        return
    from raysearch.cluster.metrics import Metrics, Watched
    from raysearch.cluster.ray_pool import RayPool
    from raysearch.cluster.session import check_fits, ray_session
    from raysearch.cluster.shape import first_replicas

    watch.say("ray       starting" if where.address is None else f"ray       connecting to {where.address}")
    with ray_session(where.address) as session:
        if session.dashboard:
            watch.say(f"dashboard {session.dashboard}")
        shape = shape_of(question.job, session.gpus, watch.say)
        if session.embedded:
            check_fits(session, shape)
        replicas = first_replicas(session.nodes, shape)
        watch.say(f"loading   {question.job.model.path}, {replicas} replica{'s' * (replicas > 1)}")
        name, metrics = f"raysearch-{question.job.name}-{os.getpid()}", Metrics()
        pool = Watched(RayPool(work, name, shape, metrics.usage), metrics)
        try:
            yield pool
        finally:
            pool.close()


def _work(question: Question) -> Work:
    job = question.job
    return Work(
        model=job.model.path,
        revision=job.model.revision,
        dtype=job.model.dtype,
        pairs=tuple(_bare(p) for p in question.pairs),
        positions=question.positions,
        variables=question.variables,
        rows=job.resources.rows,
        cpus=job.resources.cpus,
        components=question.components,
        device_map=job.model.device_map,
        factory=job.model.is_factory,
        trust_remote_code=job.model.trust_remote_code,
        memory=None if job.resources.memory == "auto" else job.resources.memory,
        files=job.space.sae_paths,
        recipe=job.fit.recipe,
    )


def _bare(pair: Pair) -> Pair:
    """The pair without the causal model's values: they stay at home, and may be of types that no worker knows."""
    sources = {name: replace(source, values={}) for name, source in pair.sources.items()}
    return replace(pair, base=replace(pair.base, values={}), sources=sources)


def _mirror(run: RunFolder, question: Question, facts: ModelFacts, digest: str, uri: str | None) -> MlflowMirror | None:
    return None if uri is None else mirror_of(run, question, facts, digest, uri)


def _tracking_of(run: RunFolder, where: Where) -> str | None:
    """The tracking URI of a run that goes on: its own, with the credentials that --tracking-uri (or its variable) has for it."""
    if run.info.tracking_uri is None or not where.tracking_uri or where.tracking_uri == "none":
        return run.info.tracking_uri
    given = tracking_uri(where.tracking_uri)
    return given if without_credentials(given) == run.info.tracking_uri else run.info.tracking_uri


def _tell_model(opened: Opened, question: Question, watch: Watch) -> None:
    facts = opened.facts
    slower = {"batched": "rows are run whole, not from the patch on", "plain": "each row is run by itself"}
    path = f" ({slower[facts.path]}: slower)" if facts.path in slower else ""
    width = f" of width {facts.width}" if facts.width else ""
    if question.job.model.trust_remote_code:
        watch.say(f"code      that lies with {question.job.model.path} was run (model.trust_remote_code)")
    watch.say(f"model     {facts.layers} layers{width}, {facts.dtype} on {facts.device}{path}")
    space = question.space(facts)
    watch.say(
        f"asking    {len(space)} hypotheses: {len(question.variables)} variables at {len(space) // len(question.variables)} sites"
    )


def _check_same(run: RunFolder, question: Question, kept: KeptPairs, opened: Opened) -> None:
    """Raises: ResumeError where the model here is not the one that the run began with."""
    here, there = opened.facts.digest, run.info.model_digest
    if here != there:
        raise ResumeError(
            f"run {run.info.id} began with a model of digest {(there or 'none')[:12]}, {question.job.model.path} has {here[:12]}: "
            "their outputs do not mix; put the old model back, or submit the job again"
        )
    if question.job.space.sae_paths and question.hash(pairs_digest(kept.pairs)) != run.info.job_hash:
        raise ResumeError(
            f"run {run.info.id}: a sparse autoencoder that the job names ({', '.join(question.job.space.sae_paths)}), or another of its "
            "files, was changed since it began; put the old file back, or submit the job again"
        )
    if kept.encoded is not None and kept.encoded != opened.encoded:
        raise ResumeError(
            f"run {run.info.id}: {question.job.model.path} sees the pairs otherwise than when it began (its tokenizer, or its positions); "
            "use the transformers version of its run.json, or submit the job again"
        )
