"""Folders that outlive us, on a disk or on an object store: the one seam between a run and where it
is kept.

Import what is needed from its module: pyarrow costs a good part of a second, and a local folder
needs none of it.
"""
