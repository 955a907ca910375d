"""Reads `results`: one row for each hypothesis of a run, with its verdict if there is one.

Invariants: columns are those of the tables `hypotheses`, `verdicts` and `selection`, in order (a
contract); a user's condition is SQL over these columns and can access no file, network or other
table.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from raysearch.core.hypothesis import is_in_layers
from raysearch.errors import JobError, StoreError, check_memory
from raysearch.limits import QUERY_BYTES, QUERY_SECONDS
from raysearch.report import query as query_program
from raysearch.report.control_comparison import widths
from raysearch.report.margins import read_margins
from raysearch.report.population_text import earlier_population
from raysearch.report.query import ROW, rows_of
from raysearch.report.row_sequence import Rows
from raysearch.report.run_results import RunResults, compare_controls, of_same_variables
from raysearch.report.undecided_reasons import with_reasons
from raysearch.report.warnings import PAIR_COLUMNS, PairFacts, warnings_of
from raysearch.storage.digests_json import TABLES, each_checked, read_checked
from raysearch.storage.folder import Folder
from raysearch.storage.open_folder import FolderLike, open_folder
from raysearch.storage.parquet import from_parquet
from raysearch.store import schemas
from raysearch.store.job_file import read_job
from raysearch.store.run_folder import RunFolder

_BEYOND = ("InterruptException", "OutOfMemoryException", "MemoryError")
"""Kinds of errors of a condition that passes a limit."""
_PLACE = (
    *("variable", "layer", "component", "position", "head"),
    *("featurizer", "features", "hypothesis"),
)
_ORDER = f"verdict = 'accept' DESC NULLS LAST, iia DESC NULLS LAST, {', '.join(_PLACE)}"
TEXT_COLUMNS = {"subspace", "warnings"} | {
    field.name
    for table in ("hypotheses", "verdicts", "selection", "sets")
    for field in schemas.TABLES[table]
    if pa.types.is_string(field.type)
}
"""The columns that hold text; the others hold numbers."""


def read_results(run: FolderLike) -> RunResults:
    """Reads all hypotheses and controls of a run. Raises: StoreError if there are none."""
    found = _with_warnings(run, read_verdicts(run))
    return replace(found, table=found.table.take(_order(found.table)))


def _order(table: pa.Table) -> pa.Array:
    """Returns the rows' indices in the order in which they are shown (that of `_ORDER`)."""
    accepted = pc.cast(pc.equal(table["verdict"], "accept"), pa.int8())
    keys = table.select(["iia", *_PLACE]).append_column("accepted", accepted)
    ways = [("accepted", "descending"), ("iia", "descending")]
    return pc.sort_indices(keys, [*ways, *((name, "ascending") for name in _PLACE)])


def read_verdicts(run: FolderLike) -> pa.Table:
    """Reads hypotheses and controls with their verdicts, in the order of proposal.

    Raises: StoreError if there are none.
    """
    hypotheses = read_table(run, "hypotheses")
    if not hypotheses.num_rows:
        raise StoreError(
            f"{open_folder(run).place}: there are no hypotheses in its tables yet; let the run go "
            f"on, or `resume` it"
        )
    joined = _join(_clear_wrong_layers(hypotheses), read_table(run, "verdicts"))
    job = read_job(folder := open_folder(run))
    joined = with_reasons(joined, job, RunFolder.open(folder).info.continued if job else None)
    return _join(_with_population(run, joined), read_table(run, "selection"))


def results(
    run: FolderLike,
    accepted: bool = False,
    variable: str | None = None,
    where: str | None = None,
    top: int | None = None,
    controls: bool = False,
    sets: bool = False,
) -> pa.Table:
    """Returns the hypotheses of a run, accepted ones first, then by IIA; undecided verdicts are
    null.

    Args: where: an SQL condition over the columns, e.g. "layer < 10 and iia > 0.9". top: maximum of
    rows. controls: include the controls' interventions. sets: one row for each hypothesis and kind
    of pair (Pair.set), with the figures of that kind alone. For a run in progress, the last table
    part read holds the verdicts so far.

    Raises: StoreError if there are no hypotheses to read; JobError for a bad condition, naming the
    columns, and for `sets` when there are none.
    """
    joined = _with_warnings(run, read_verdicts(run)).table
    if sets:
        joined = _join_sets(joined, _sets(run))
    conditions = [
        c for c, on in (("verdict = 'accept'", accepted), ("control IS NULL", not controls)) if on
    ]
    if variable is not None:
        _check_variable(variable, joined)
        conditions.append("variable = '{}'".format(variable.replace("'", "''")))
    if where is not None:
        conditions.append(f"({where}\n)")  # the newline ends a trailing comment
    chosen, order = " AND ".join(conditions) or "true", _ORDER + ", set" * sets
    limit = "" if top is None else f"LIMIT {min(top, joined.num_rows)}"
    query = f'SELECT "{ROW}" FROM results WHERE {chosen} ORDER BY {order} {limit}'
    return joined.take(_rows(joined, where, query))


def _rows(joined: pa.Table, where: str | None, query: str) -> pa.ChunkedArray | pa.Array:
    """Returns the numbers of the chosen rows. A condition that calls a function, or asks another
    query, is asked in a process that the system can end.

    Raises: JobError for a bad condition.
    """
    try:
        if where is None or "(" not in where:
            return rows_of(joined, where, query, QUERY_SECONDS, QUERY_BYTES)
    except duckdb.Error as e:
        raise _bad_condition(where or "", joined.column_names, type(e).__name__, str(e)) from e
    command = [sys.executable, "-P", str(Path(query_program.__file__))]
    with tempfile.TemporaryFile() as asked:  # a pipe to a process that ended early raises SIGPIPE
        asked.write(f"{json.dumps([where, query, QUERY_SECONDS, QUERY_BYTES])}\n".encode())
        with pa.ipc.new_stream(asked, joined.schema) as stream:
            stream.write_table(joined)
        asked.seek(0)
        done = subprocess.run(
            command, stdin=asked, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
    found = json.loads(done.stdout) if done.returncode == 0 else ["MemoryError", ""]
    if found and isinstance(found[0], str):
        raise _bad_condition(where, joined.column_names, *found)
    return pa.array(found, pa.int64())


def _clear_wrong_layers(hypotheses: pa.Table) -> pa.Table:
    """Removes the layer of components outside of all layers; older runs store 0 for them."""
    components = hypotheses["component"]
    outside = [c for c in pc.unique(components).to_pylist() if c and not is_in_layers(c)]
    wrong = pc.is_in(components, pa.array(outside, pa.string()))
    layers = pc.if_else(wrong, pa.scalar(None, pa.int32()), hypotheses["layer"])
    return hypotheses.set_column(hypotheses.column_names.index("layer"), "layer", layers)


def _with_population(run: FolderLike, found: pa.Table) -> pa.Table:
    """Names the population of verdicts that were written without it."""
    if "population" not in found.column_names:
        return found
    missing = pc.and_(pc.is_valid(found["verdict"]), pc.is_null(found["population"]))
    if not pc.any(missing).as_py():
        return found
    filled = pc.if_else(
        missing, earlier_population(read_job(open_folder(run))), found["population"]
    )
    return found.set_column(found.column_names.index("population"), "population", filled)


def _with_warnings(run: FolderLike, found: pa.Table) -> RunResults:
    """Adds the column `warnings`: the codes of each accepted hypothesis, separated by commas; null
    for others.
    """
    read, codes = RunResults(found), dict[str, str]()
    if accepted := read.accepted:
        margins = read_margins(run, list(accepted), of_same_variables(read.controls, accepted))
        read = replace(read, margins=margins, widths=_widths_of(run, accepted))
        codes = _codes(open_folder(run), read)
    column = [codes.get(h) for h in found["hypothesis"].to_pylist()]
    return replace(read, table=found.append_column("warnings", pa.array(column, pa.string())))


def _codes(folder: Folder, found: RunResults) -> dict[str, str]:
    """Returns the codes of accepted hypotheses, by the hypothesis."""
    before = bool(RunFolder.open(folder).info.used_before)
    pairs = PairFacts(
        from_parquet(read_checked(folder, "pairs.parquet"), PAIR_COLUMNS).to_pylist()
        if folder.exists("pairs.parquet")
        else []
    )
    return {
        compared.row["hypothesis"]: ", ".join(warnings_of(compared, pairs, before))
        for compared in compare_controls(found, any_score=True)
    }


def _widths_of(run: FolderLike, accepted: Rows) -> dict[str, int]:
    """Returns the widths found in the training of accepted hypotheses, by the fit's digest."""
    wanted = accepted.values("fit")
    parts = (Rows(part).where("fit", *wanted) for part in read_parts(run, "fits", ("fit", "found")))
    return widths(row for part in parts for row in part)


def _join(left: pa.Table, right: pa.Table) -> pa.Table:
    """Adds the columns of `right`, which has at most one row for each hypothesis; null without."""
    at = pc.index_in(left["hypothesis"], right["hypothesis"].combine_chunks())
    for name in right.column_names:
        if name != "hypothesis":
            left = left.append_column(name, right[name].take(at))
    return left


def _join_sets(joined: pa.Table, sets: pa.Table) -> pa.Table:
    """Returns the rows of `sets` of decided hypotheses, after their hypothesis and verdict."""
    known = set(schemas.TABLES["hypotheses"].names) | {"verdict"}
    decided = joined.select([name for name in joined.column_names if name in known])
    found = _join(sets, decided).filter(pc.field("verdict").is_valid())
    return found.select(
        [*decided.column_names, *(n for n in sets.column_names if n != "hypothesis")]
    )


def _sets(run: FolderLike) -> pa.Table:
    """Returns the table `sets`. Raises: JobError if no pair of the run has a set."""
    found = read_table(run, "sets")
    if not found.num_rows:
        raise JobError(
            '--sets: the pairs of this run name no sets; give pairs a "set", or leave --sets out'
        )
    return found


def read_table(run: FolderLike, table: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Returns a table with all its parts and the columns of today's schema, or some of them.

    Columns that an earlier version did not write are null; without parts the table is empty.

    Raises: StoreError for a part that cannot be read.
    """
    none = schemas.TABLES[table].remove_metadata().empty_table()
    none = none if columns is None else none.select(columns)
    return pa.concat_tables([none, *read_parts(run, table, columns)], promote_options="default")


def read_parts(
    run: FolderLike, table: str, columns: Sequence[str] | None = None
) -> Iterator[pa.Table]:
    """Yields the parts of a table in order, with all or some columns.

    Raises: StoreError for a part that is lost, damaged, or cannot be read.
    """
    root = open_folder(run)
    folder = root.at(TABLES).at(table)
    for name, content in each_checked(root, table):
        try:
            part = from_parquet(content, columns)
        except (pa.ArrowException, OSError) as e:
            check_memory(e, f"reading {folder.shown(name)}")
            first = str(e).splitlines()[0]
            raise StoreError(
                f"{folder.shown(name)}: cannot be read ({first}); `raysearch repair {root.place}` "
                f"writes it anew from the journal"
            ) from e
        yield part


def _check_variable(variable: str, found: pa.Table) -> None:
    known = found["variable"].unique().to_pylist()
    if variable not in known:
        raise JobError(
            f"--variable: {variable!r} is no variable of this run; it has "
            f"{', '.join(sorted(known))}"
        )


def _bad_condition(where: str, columns: Sequence[str], kind: str, text: str) -> JobError:
    if kind in _BEYOND or "bad_alloc" in text:
        return JobError(
            f"--where: {where!r:.300} takes more than {QUERY_SECONDS:.0f} s or "
            f"{QUERY_BYTES / 2**30:.0f} GiB of memory; give a condition on the columns of a row, "
            "without tables or long texts of its own"
        )
    why = text.splitlines()[0] if text else kind
    return JobError(
        f"--where: {where!r:.300} is no condition ({why}); it is SQL over the columns "
        f"{', '.join(columns)}"
    )
