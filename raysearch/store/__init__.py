"""What a run keeps: the journal (the one truth), the run folder, Arrow tables. Only the driver
writes.

Import what is needed from its module: pyarrow costs a good part of a second.
"""
