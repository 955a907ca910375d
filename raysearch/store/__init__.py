"""Storage of a run: the journal (the single source of truth), the run folder, Arrow tables.

Only the driver writes. Import what is needed from its module: pyarrow takes a good part of a
second.
"""
