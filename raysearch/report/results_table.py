"""`results`: one row for each hypothesis of a run, with its verdict where there is one.

Invariants: column names and order are those of the tables `hypotheses` and `verdicts` (a contract);
a condition of the user's is SQL over these columns alone: it can reach no file, no network, no
other table.
"""

from collections.abc import Iterator, Sequence

import duckdb
import pyarrow as pa

from raysearch.core.hypothesis import layer_of
from raysearch.errors import JobError, StoreError
from raysearch.storage.digests import TABLES, each_checked
from raysearch.storage.open import FolderLike, open_folder
from raysearch.storage.parquet import from_parquet
from raysearch.store import schemas

_ORDER = "verdict = 'accept' DESC NULLS LAST, iia DESC NULLS LAST, variable, layer, component, position, head, hypothesis"
SHOWN = (
    "variable", "layer", "component", "head", "position", "subspace", "units",
    "verdict", "set", "iia", "low", "high", "n", "holdout_iia", "keep_iia", "reason",
)  # fmt: skip
"""The columns that people look at first; `subspace` and `units` in words."""
WORDS = {"subspace"} | {
    field.name
    for table in ("hypotheses", "verdicts", "sets")
    for field in schemas.TABLES[table]
    if pa.types.is_string(field.type)
}
"""The columns of words; the others are numbers."""
_JOINED = "SELECT * FROM hypotheses LEFT JOIN verdicts USING (hypothesis)"
_BY_SET = "SELECT * FROM hypotheses JOIN (SELECT hypothesis, verdict FROM verdicts) USING (hypothesis) JOIN sets USING (hypothesis)"
_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": "false",
    "autoload_known_extensions": "false",
    "autoinstall_known_extensions": "false",
    "python_enable_replacements": "false",
    "lock_configuration": "true",
    "threads": 2,
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
    """The hypotheses of a run, accepted ones first, then by IIA; verdict columns are null for those
    not yet decided.

    `where`: an SQL condition over the columns, e.g. "layer < 10 and iia > 0.9". `top`: at most so
    many rows. `controls`: the interventions that stand for a control too. `sets`: a row for each
    kind of pair (Pair.set) of each hypothesis, its figures those of that kind alone. "verdicts so
    far" while a run goes on: up to its last part.

    Raises: StoreError if there are no hypotheses to read; JobError for a bad condition, naming the
    columns, and for sets where there are none.
    """
    hypotheses = read_table(run, "hypotheses")
    if not hypotheses.num_rows:
        raise StoreError(
            f"{open_folder(run).place}: there are no hypotheses in its tables yet; let the run go "
            f"on, or `resume` it"
        )
    con = duckdb.connect(":memory:", config=_CONFIG)
    try:
        con.register("hypotheses", _as_of_today(hypotheses))
        con.register("verdicts", read_table(run, "verdicts"))
        if sets:
            con.register("sets", _sets(run))
        joined = con.sql(_BY_SET if sets else _JOINED).to_arrow_table()
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
            conditions.append(f"({where}\n)")  # the line's end closes a comment
        limit = "" if top is None else f"LIMIT {int(top)}"
        try:
            query = f"SELECT * FROM results WHERE {' AND '.join(conditions) or 'true'} ORDER BY {_ORDER}{', set' * sets} {limit}"
            return con.sql(query).to_arrow_table()
        except duckdb.Error as e:
            raise _bad_condition(where or "", joined.column_names, e) from e
    finally:
        con.close()


def _as_of_today(hypotheses: pa.Table) -> pa.Table:
    """With no layer for what is of none: runs of before say 0 of it."""
    pairs = zip(hypotheses["layer"].to_pylist(), hypotheses["component"].to_pylist(), strict=True)
    layers = pa.array(
        [layer if component is None else layer_of(component, layer) for layer, component in pairs],
        pa.int32(),
    )
    return hypotheses.set_column(hypotheses.column_names.index("layer"), "layer", layers)


def _sets(run: FolderLike) -> pa.Table:
    """Raises: JobError where no pair of the run says its set."""
    found = read_table(run, "sets")
    if not found.num_rows:
        raise JobError(
            '--sets: the pairs of this run name no sets; give pairs a "set", or leave --sets out'
        )
    return found


def read_table(run: FolderLike, table: str) -> pa.Table:
    """Returns all parts of a table, in their order, with the columns of its schema: those that an
    earlier version did not write are null. Empty where there are no parts yet.

    Raises: StoreError for a part that cannot be read.
    """
    none = schemas.TABLES[table].remove_metadata().empty_table()
    return pa.concat_tables([none, *each_part(run, table)], promote_options="default")


def each_part(
    run: FolderLike, table: str, columns: Sequence[str] | None = None
) -> Iterator[pa.Table]:
    """The parts of a table, in their order, or some columns of them; none where there are none yet.

    Raises: StoreError for a part that is lost, damaged, or cannot be read.
    """
    place = open_folder(run)
    folder = place.at(TABLES).at(table)
    for name, content in each_checked(place, table):
        try:
            part = from_parquet(content, columns)
        except (pa.ArrowException, OSError) as e:
            first = str(e).splitlines()[0]
            raise StoreError(
                f"{folder.shown(name)}: cannot be read ({first}); `raysearch repair {place.place}` "
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
    """One condition and nothing else: no second statement, no way out of the brackets that it will
    stand in."""
    try:
        if len(con.extract_statements(f"SELECT {where}\n FROM results")) != 1:
            raise duckdb.ParserException("more than one statement")
        con.sql(f"SELECT {where}\n FROM results LIMIT 0")
    except duckdb.Error as e:
        raise _bad_condition(where, columns, e) from e


def _bad_condition(where: str, columns: Sequence[str], e: Exception) -> JobError:
    why = str(e).splitlines()[0] if str(e) else type(e).__name__
    return JobError(
        f"--where: {where!r} is no condition ({why}); it is SQL over the columns "
        f"{', '.join(columns)}"
    )
