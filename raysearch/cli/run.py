"""Runs a search from the command line: progress on stderr, the alignment on stdout, an exit code.

Invariants: whatever ends a search early, the command that resumes it is printed if that can help.
"""

import shlex
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from raysearch.cli.hypothesis_table import print_table
from raysearch.cli.json_output import emit
from raysearch.cli.results import further, next_command, print_claim, print_controls
from raysearch.cli.terminal import console, lead, line_of_ours, say
from raysearch.cluster.job_environment import job_environment
from raysearch.job import Job
from raysearch.report.run_results import compare_controls
from raysearch.runner.resolution.error_context import naming_file
from raysearch.runner.session import frontend, run
from raysearch.runner.session.frontend import RunOutcome
from raysearch.runner.session.interrupt import INTERRUPTED, Interrupt
from raysearch.runner.session.progress_display import ProgressDisplay
from raysearch.runner.session.too_few_pairs import nothing_accepted
from raysearch.runner.stored_run.find_hypothesis import short_ids
from raysearch.runner.stored_run.resume_checks import sent_with
from raysearch.store.run_folder import RunFolder
from raysearch.viewer.page import FILE as PAGE

FAILED_TOO_MANY = 3
COUNTS = ("accepted", "rejected", "undecided", "failed", "pairs")
"""Numbers of a search, in its JSON document."""


@dataclass(frozen=True, kw_only=True)
class CommandOptions(frontend.RunOptions):
    """The flags of a run: where it runs and how verbose it is, never what it computes."""

    fail_on_error: float
    quiet: bool
    no_color: bool
    output: str = "text"
    command: str = "run"


def start(job_file: Path, sets: Sequence[str], where: CommandOptions) -> int:
    """Starts a new run of a job; returns the exit code. Raises: RaysearchError in one line."""
    job = Job.load(job_file, sets)
    with naming_file(job_file, job), _Terminal(where) as terminal:
        ended = run.start_run(job, where, terminal, sent_with(job_file), job_file=job_file)
        return _finish(ended, where)


def resume(
    name: str, where: CommandOptions, retry: bool = False, more_pairs: int | None = None
) -> int:
    """Resumes the run `name` where its journal ends; returns the exit code.

    Args: retry: try again what failed; more_pairs: test what is undecided on so many more pairs.

    Raises: RaysearchError in one line.
    """
    with _Terminal(where) as terminal:
        return _finish(run.resume_run(name, where, terminal, retry, more_pairs=more_pairs), where)


class _Terminal(ProgressDisplay):
    """Shows a run's progress on the terminal."""

    def __init__(self, where: CommandOptions) -> None:
        super().__init__(where.quiet, where.no_color)
        self._where = where

    def interrupt(self) -> Interrupt:
        return Interrupt()

    def left(self, status: str, run: RunFolder) -> None:
        """Says it, behind the error that ends the search, where there is one: what goes on stands
        last."""
        text, error = f"{status}; go on with: {_resume(run, self._where)}", sys.exc_info()[1]
        if isinstance(error, Exception):
            error.add_note(line_of_ours(text))
        else:
            say(text)

    def ended(self, ended: RunOutcome) -> None:
        if self._where.quiet:
            return
        run, place = ended.run, shlex.quote(ended.run.place)
        if self._where.output != "json":
            self._print_alignment(ended)
        if ended.snapshot.undecided:
            self.say(f"undecided raysearch results {place} --where \"verdict = 'undecided'\"")
            command, why = further(run)
            if why:
                self.say(f"          {why}")
            if "--more-pairs" in command:
                self.say(f"          {command}")
        if run.heatmaps.names():
            self.say(f"heat maps {run.heatmaps.place}")
        self.say(f"page      {run.place}/{PAGE}")
        self.say(f"more      raysearch results {place}")

    def _print_alignment(self, ended: RunOutcome) -> None:
        accepted, stdout = ended.results.accepted.table, console(self._where.no_color)
        if not accepted.num_rows:
            stdout.print("Alignment: no hypothesis was accepted.")
            return
        digits = short_ids(ended.run.folder)
        print_table(accepted, stdout, "Alignment: accepted hypotheses", digits=digits)
        print_claim(ended.run, stdout)
        print_controls(list(compare_controls(ended.results)), stdout)


def _finish(ended: RunOutcome, where: CommandOptions) -> int:
    """Prints what is left to print of a run; returns the exit code."""
    code = _code(ended, where)
    if where.output == "json":
        done = ended.status == "done"
        rows = list(ended.results.accepted) if done else None
        counts = {name: getattr(ended.snapshot, name) for name in COUNTS}
        emit(
            where.command,
            run=ended.run.place,
            status=ended.status,
            exit_code=code,
            **counts,
            alignment=rows,
            can_accept=not nothing_accepted(ended) if done else None,
            page=f"{ended.run.place}/{PAGE}" if done else None,
        )
    if ended.status == "done" and not code:
        command, why = next_command(ended.run, ended.results.hypotheses.table)
        lead(command, where.quiet, why)
    return code


def _code(ended: RunOutcome, where: CommandOptions) -> int:
    if ended.status == "interrupted":
        return INTERRUPTED
    end = ended.snapshot
    if end.failed > where.fail_on_error * end.decided:
        say(
            f"{end.failed} of {end.decided} hypotheses failed, more than --fail-on-error "
            f"{where.fail_on_error:g}; see {ended.run.tables.at('failures').place}"
        )
        _say_why(ended)
        say(f"when that is mended: {_resume(ended.run, where, ' --retry-failed')}")
        return FAILED_TOO_MANY
    return 0


def _resume(run: RunFolder, where: CommandOptions, how: str = "") -> str:
    """Returns the command that resumes a run."""
    here = job_environment()
    address = here.address if here is not None else where.address
    flags = (
        " --pool local"
        if where.pool == "local"
        else f" --address {shlex.quote(address)}"
        if address
        else ""
    )
    return f"raysearch resume {shlex.quote(run.place)}{how}{flags}"


def _say_why(ended: RunOutcome) -> None:
    """Prints the most frequent reason of failures, and where to find all."""
    failed = ended.results.hypotheses.where("verdict", "failed")
    reasons = Counter(failed.column("reason").to_pylist())
    reason, times = reasons.most_common(1)[0]
    shown = f"raysearch results {shlex.quote(ended.run.place)} --where \"verdict = 'failed'\""
    say(f"{times} times: {reason}; all of them: {shown}")
