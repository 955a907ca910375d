"""Turns a job into a run: resolves it, opens a pool, drives the search to its end or to an
interrupt, and resumes it. Knows nothing of who asked: command line or notebook.

Invariants: nothing here prints: what is to be said is said to whoever follows the run (`Frontend`).
"""
