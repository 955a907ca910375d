"""Arrow tables as pandas frames. pandas is imported when a frame is asked for."""

from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from pandas import DataFrame


def frame(table: pa.Table) -> "DataFrame":
    """Returns the table as a pandas frame with Arrow's own types, so that a missing head is missing
    and layers stay integers."""
    import pandas as pd

    return table.to_pandas(types_mapper=pd.ArrowDtype)
