"""Tables to answers and pictures: results, heat maps. Reads a run folder's Parquet files; knows
nobody who writes them."""
