"""A run as Python sees it, while it is going on and when it is done: its alignment, its results,
heat maps, pairs.

Invariants: everything is read from the run folder when it is asked for, so that a run on its way
shows its verdicts so far; nothing is written to it; no model is loaded.
"""

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from raysearch.core.option_names import ExportFormat
from raysearch.errors import JobError, RaysearchError
from raysearch.job import Job
from raysearch.job.file_keys import only_looked_at
from raysearch.notebook.data_frames import frame
from raysearch.notebook.summary import Summary, html
from raysearch.report.results_table import read_results, read_table, results
from raysearch.report.run_results import compare_controls
from raysearch.report.warnings import warning_lines
from raysearch.runner.session.status import local_status
from raysearch.storage.digests_json import read_checked
from raysearch.storage.parquet import from_parquet
from raysearch.store.locations import DEFAULT_STORE
from raysearch.store.pairs_table import FILE
from raysearch.store.run_folder import JOB_FILE, RunFolder, RunInfo, find_run
from raysearch.viewer.pair_texts import read_tokens
from raysearch.visible_text import visible

if TYPE_CHECKING:
    from pandas import DataFrame

    from raysearch.report.figure import Picture


class Run:
    """A search that was run, done or not: its verdicts, tables, heat maps and pairs. `rs.run` gives
    one; `Run.open` finds one again."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder

    @classmethod
    def open(cls, run: str = "latest", store: str = DEFAULT_STORE) -> "Run":
        """Returns the run at a path or URI, or of that name in `store`, or its "latest". Raises:
        StoreError, naming the nearest."""
        return cls(find_run(store, str(run)))

    @property
    def place(self) -> str:
        """The run's path or URI, as every command takes it."""
        return self._folder.place

    @property
    def info(self) -> RunInfo:
        """The run's run.json: versions, digests, the time of its start."""
        return self._folder.info

    @cached_property
    def job(self) -> Job:
        """The job of the run, with its defaults filled in."""
        return Job.read(
            self._folder.job_text, self._folder.folder.shown(JOB_FILE), away=only_looked_at
        )

    @property
    def alignment(self) -> "DataFrame":
        """The accepted hypotheses. Raises: StoreError where nothing was proposed yet."""
        return self.results(accepted=True)

    def results(
        self,
        accepted: bool = False,
        variable: str | None = None,
        where: str | None = None,
        top: int | None = None,
        controls: bool = False,
    ) -> "DataFrame":
        """Returns the hypotheses with their verdicts, accepted ones first, then by IIA. `where`: an
        SQL condition over the columns.

        Raises: StoreError where nothing was proposed yet; JobError for a variable or condition that
        is none.
        """
        return frame(results(self._folder.folder, accepted, variable, where, top, controls))

    def to_pandas(self) -> "DataFrame":
        """Returns every hypothesis with its verdict, as `results`."""
        return self.results()

    def to_arrow(self) -> pa.Table:
        """Returns every hypothesis with its verdict."""
        return results(self._folder.folder)

    @property
    def pairs(self) -> "DataFrame":
        """Every pair: texts, tokens, answers, what the model says by itself, its block. Raises:
        StoreError."""
        return frame(from_parquet(read_checked(self._folder.folder, FILE)))

    @property
    def dropped(self) -> "DataFrame":
        """Returns the pairs that do not count for a variable: split, set, reason, number, and the
        way out. Raises: StoreError."""
        return frame(read_table(self._folder.folder, "dropped"))

    def export(
        self,
        hypothesis: str | None,
        to: str | Path,
        format: ExportFormat = "raysearch",
        task: str | None = None,
        model_name: str | None = None,
        force: bool = False,
        model: Any = None,
    ) -> list[Path]:
        """Writes the intervention of a hypothesis (its id, or the beginning of it) to the folder
        `to`, as `raysearch export` does; returns the folders that were written.

        `format`: "raysearch", which `rs.load_intervention` reads; "pyvene"; "mib", a submission of
        MIB's causal-variable track, of the whole alignment where `hypothesis` is None, with `task`
        and `model_name` as MIB calls them. `force`: files that are there may be written over.
        `model`: the network itself, as `rs.run` takes it, for the constant of a mean ablation,
        where the run's network was given as an object or is made by a function.

        Raises: JobError, ModelError, StoreError.
        """
        from raysearch.notebook.model_arguments import given_model  # torch
        from raysearch.runner.exports.export_formats import export_as

        if not force and Path(to).is_dir() and any(Path(to).iterdir()):
            raise JobError(
                f"to: {to} is not empty, and files of its own names would be written over; give "
                f"another folder, or force=True"
            )

        given = None if model is None else given_model(model)
        return export_as(format, self._folder, hypothesis, Path(to), task, model_name, given)

    def status(self) -> str:
        """Returns the state of the run by its journal: driver, stage, verdicts so far, its tracker.
        Raises: StoreError, ResumeError."""
        again = RunFolder.open(self._folder.folder)  # run.json as it is by now
        return "\n".join(map(visible, local_status(again)))

    def heatmap(self, variable: str | None = None, of: str = "") -> "Picture":
        """Draws where a variable (None: the first) was found: a matplotlib figure, layers upward,
        positions across. `of`: another panel, such as "das 4" or "head last".

        Raises: StoreError where nothing was proposed yet; JobError for what the run does not have.
        """
        from raysearch.report.heatmap import heatmap  # matplotlib, asked for here alone

        folder = self._folder.folder
        return heatmap(folder, variable, of, read_tokens(folder))

    def _summary(self) -> Summary:
        folder = self._folder.folder
        found = read_results(folder)
        warnings = tuple(b.warning for b in compare_controls(found) if b.warning is not None)
        warnings += tuple(warning_lines(found.accepted))
        table, continued = found.hypotheses.table, self.info.continued
        return Summary(self.info.id, self.place, self.job, table, warnings, continued)

    def __repr__(self) -> str:
        try:
            return str(self._summary())
        except RaysearchError as e:  # a run of which nothing can be shown yet is still a run
            return visible(f"Run {self.info.id}: {e}")

    def _repr_html_(self) -> str:
        try:
            return self._summary().html()
        except RaysearchError as e:
            return html("p", f"Run {self.info.id}: {e}")
