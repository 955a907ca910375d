"""Reads `results`: one row for each hypothesis of a run, with its verdict if there is one.

Invariants: columns are those of the tables `hypotheses` and `verdicts`, in order (a contract); a
user's condition is SQL over these columns and can access no file, network or other table.
"""

from collections.abc import Iterator, Sequence
from threading import Timer
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from raysearch.core.hypothesis import layer_of
from raysearch.errors import JobError, StoreError, check_memory
from raysearch.limits import QUERY_BYTES, QUERY_SECONDS
from raysearch.report.control_rows import compare, widths
from raysearch.report.population import earlier_population
from raysearch.report.warnings import PAIR_COLUMNS, PairFacts, warnings_of
from raysearch.storage.digests import TABLES, each_checked, read_checked
from raysearch.storage.open import FolderLike, open_folder
from raysearch.storage.parquet import from_parquet
from raysearch.store import schemas

_ORDER = (
    "verdict = 'accept' DESC NULLS LAST, iia DESC NULLS LAST, "
    "variable, layer, component, position, head, hypothesis"
)
MAIN_COLUMNS = (
    "variable", "layer", "component", "head", "position", "subspace", "units",
    "verdict", "set", "iia", "low", "high", "n", "distinct", "holdout_iia", "keep_iia",
    "population", "warnings", "reason",
)  # fmt: skip
"""The columns that matter most to people; `subspace` and `units` are shown in words."""
TEXT_COLUMNS = {"subspace", "warnings"} | {
    field.name
    for table in ("hypotheses", "verdicts", "sets")
    for field in schemas.TABLES[table]
    if pa.types.is_string(field.type)
}
"""The columns that hold text; the others hold numbers."""
_JOINED = "SELECT * FROM hypotheses LEFT JOIN verdicts USING (hypothesis)"
_BY_SET = (
    "SELECT * FROM hypotheses JOIN (SELECT hypothesis, verdict FROM verdicts) USING (hypothesis) "
    "JOIN sets USING (hypothesis)"
)
_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": "false",
    "autoload_known_extensions": "false",
    "autoinstall_known_extensions": "false",
    "python_enable_replacements": "false",
    "lock_configuration": "true",
    "threads": 2,
    "memory_limit": f"{QUERY_BYTES // 2**20}MiB",
}


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
    hypotheses = read_table(run, "hypotheses")
    if not hypotheses.num_rows:
        raise StoreError(
            f"{open_folder(run).place}: there are no hypotheses in its tables yet; let the run go "
            f"on, or `resume` it"
        )
    con = duckdb.connect(":memory:", config=_CONFIG)
    timer = Timer(QUERY_SECONDS, con.interrupt)
    timer.daemon = True
    timer.start()
    try:
        con.register("hypotheses", _clear_wrong_layers(hypotheses))
        con.register("verdicts", read_table(run, "verdicts"))
        if sets:
            con.register("sets", _sets(run))
        joined = con.sql(_BY_SET if sets else _JOINED).to_arrow_table()
        joined = with_warnings(run, _with_population(run, joined))
        con.register("results", joined)
        conditions = [
            c
            for c, on in (("verdict = 'accept'", accepted), ("control IS NULL", not controls))
            if on
        ]
        if variable is not None:
            _check_variable(variable, hypotheses)
            conditions.append("variable = '{}'".format(variable.replace("'", "''")))
        if where is not None:
            _check_condition(con, where, joined.column_names)
            conditions.append(f"({where}\n)")  # the newline ends a trailing comment
        limit = "" if top is None else f"LIMIT {int(top)}"
        try:
            condition, order = " AND ".join(conditions) or "true", _ORDER + ", set" * sets
            query = f"SELECT * FROM results WHERE {condition} ORDER BY {order} {limit}"
            return con.sql(query).to_arrow_table()
        except duckdb.Error as e:
            raise _bad_condition(where or "", joined.column_names, e) from e
    finally:
        timer.cancel()
        con.close()


def _clear_wrong_layers(hypotheses: pa.Table) -> pa.Table:
    """Removes the layer of components outside of all layers; older runs store 0 for them."""
    pairs = zip(hypotheses["layer"].to_pylist(), hypotheses["component"].to_pylist(), strict=True)
    layers = pa.array(
        [layer if component is None else layer_of(component, layer) for layer, component in pairs],
        pa.int32(),
    )
    return hypotheses.set_column(hypotheses.column_names.index("layer"), "layer", layers)


def _with_population(run: FolderLike, found: pa.Table) -> pa.Table:
    """Names the population of verdicts that were written without it."""
    if "population" not in found.column_names:
        return found
    missing = pc.and_(pc.is_valid(found["verdict"]), pc.is_null(found["population"]))
    if not pc.any(missing).as_py():
        return found
    filled = pc.if_else(missing, earlier_population(_job(run)), found["population"])
    return found.set_column(found.column_names.index("population"), "population", filled)


def _job(run: FolderLike) -> dict[str, Any]:
    folder = open_folder(run)
    return (yaml.safe_load(folder.read("job.yaml")) if folder.exists("job.yaml") else None) or {}


def with_warnings(run: FolderLike, found: pa.Table) -> pa.Table:
    """Adds the column `warnings`: the codes of each accepted hypothesis, separated by commas; null
    for others.
    """
    rows = found.to_pylist() if "copies" in found.column_names else []
    accepted = [r for r in rows if r["verdict"] == "accept" and r["control"] is None]
    codes: dict[str, str] = {}
    if accepted:
        fits = widths(read_table(run, "fits").to_pylist())
        controls = [r for r in rows if r["control"] is not None]
        folder = open_folder(run)
        pairs = PairFacts(
            from_parquet(read_checked(folder, "pairs.parquet"), PAIR_COLUMNS).to_pylist()
            if folder.exists("pairs.parquet")
            else []
        )
        threshold = (_job(run).get("test") or {}).get("threshold", 1.0)
        for row in accepted:
            as_well = compare(row, controls, fits).as_well
            codes[row["hypothesis"]] = ", ".join(warnings_of(row, pairs, as_well, threshold))
    column = [codes.get(h) for h in found["hypothesis"].to_pylist()]
    return found.append_column("warnings", pa.array(column, pa.string()))


def _sets(run: FolderLike) -> pa.Table:
    """Returns the table `sets`. Raises: JobError if no pair of the run has a set."""
    found = read_table(run, "sets")
    if not found.num_rows:
        raise JobError(
            '--sets: the pairs of this run name no sets; give pairs a "set", or leave --sets out'
        )
    return found


def read_table(run: FolderLike, table: str) -> pa.Table:
    """Returns a table with all its parts and the columns of today's schema.

    Columns that an earlier version did not write are null; without parts the table is empty.

    Raises: StoreError for a part that cannot be read.
    """
    none = schemas.TABLES[table].remove_metadata().empty_table()
    return pa.concat_tables([none, *read_parts(run, table)], promote_options="default")


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


def _check_variable(variable: str, hypotheses: pa.Table) -> None:
    known = hypotheses["variable"].unique().to_pylist()
    if variable not in known:
        raise JobError(
            f"--variable: {variable!r} is no variable of this run; it has "
            f"{', '.join(sorted(known))}"
        )


def _check_condition(con: duckdb.DuckDBPyConnection, where: str, columns: Sequence[str]) -> None:
    """Raises JobError unless `where` is a single condition that also stays one inside brackets."""
    try:
        if len(con.extract_statements(f"SELECT {where}\n FROM results")) != 1:
            raise duckdb.ParserException("more than one statement")
        con.sql(f"SELECT {where}\n FROM results LIMIT 0")
    except duckdb.Error as e:
        raise _bad_condition(where, columns, e) from e


def _bad_condition(where: str, columns: Sequence[str], e: Exception) -> JobError:
    if isinstance(e, duckdb.InterruptException):
        return JobError(
            f"--where: {where!r} takes more than {QUERY_SECONDS:.0f} s; give a condition on the "
            f"columns of a row, without tables of its own"
        )
    why = str(e).splitlines()[0] if str(e) else type(e).__name__
    return JobError(
        f"--where: {where!r} is no condition ({why}); it is SQL over the columns "
        f"{', '.join(columns)}"
    )
