"""Durable folders, on a disk or on an object store: the only interface between a run and its
storage.

Import what is needed from its module: pyarrow takes a good part of a second, and a local folder
does without it.
"""
