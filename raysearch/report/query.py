"""Asks DuckDB which rows of a table a condition chooses; as a script, in a process of its own.

A function of SQL may make gigabytes of one row, or never end, and nothing in the process can stop
it. So a condition that calls one is asked in another process, which the system ends.

As a script it reads a line of JSON ([condition, query, seconds, bytes]) and an Arrow stream, and
writes a line of JSON: the numbers of the rows, or [kind, text] of an error.

Invariants: imports nothing of raysearch, which the interpreter may not find; a condition can access
no file, network or extension.
"""

import json
import resource
import signal
import sys
from threading import Timer

import duckdb
import pyarrow as pa

ROW = "row of results"
"""The column that names rows: DuckDB then sorts numbers, not whole rows."""
_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "enable_external_access": "false",
    "autoload_known_extensions": "false",
    "autoinstall_known_extensions": "false",
    "python_enable_replacements": "false",
    "lock_configuration": "true",
    "threads": 2,
}


def rows_of(
    results: pa.Table, condition: str | None, query: str, seconds: float, most: int
) -> pa.ChunkedArray:
    """Returns the numbers of the rows of `results` that a query chooses, in its order.

    Args: condition: the user's part of the query, checked to be a single one, inside brackets too.
    most: bytes of memory.

    Raises: duckdb.Error.
    """
    con = duckdb.connect(":memory:", config=_CONFIG | {"memory_limit": f"{most // 2**20}MiB"})
    timer = Timer(seconds, con.interrupt)
    timer.daemon = True
    timer.start()
    try:
        con.register("results", results.append_column(ROW, pa.array(range(results.num_rows))))
        if condition is not None:
            if len(con.extract_statements(f"SELECT {condition}\n FROM results")) != 1:
                raise duckdb.ParserException("more than one statement")
            con.sql(f"SELECT {condition}\n FROM results LIMIT 0")
        return con.sql(query).to_arrow_table()[ROW]
    finally:
        timer.cancel()
        timer.join()  # a thread that is left when the interpreter ends may abort it
        con.close()


def _answer(condition: str, query: str, seconds: float, most: int) -> object:
    results = pa.ipc.open_stream(sys.stdin.buffer).read_all()
    with open("/proc/self/statm") as pages:
        has = int(pages.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (has + most,) * 2)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        return rows_of(results, condition, query, seconds, most).to_pylist()
    except (duckdb.Error, MemoryError) as e:
        return [type(e).__name__, str(e)]


if __name__ == "__main__":
    print(json.dumps(_answer(*json.loads(sys.stdin.buffer.readline()))))
