"""Makes the Arrow schema of a table from its columns, each with its meaning and unit."""

from typing import Any

import pyarrow as pa

from raysearch.store.run_folder import SCHEMA_VERSION

TEXT, INT, REAL = pa.string(), pa.int32(), pa.float64()
IDS = pa.list_(INT)
_Row = tuple[str, Any, str, str]


def table_schema(table: str, *columns: _Row) -> pa.Schema:
    """Returns the schema of a table. `columns`: name, type, meaning and unit of each."""
    fields = [
        pa.field(name, kind, metadata={"meaning": meaning, "unit": unit})
        for name, kind, meaning, unit in columns
    ]
    return pa.schema(fields, metadata={"schema_version": str(SCHEMA_VERSION), "table": table})
