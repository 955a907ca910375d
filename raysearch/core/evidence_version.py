"""The version of what evidence means."""

EVIDENCE_VERSION = 9
"""Raised when numerics, tests, looks or proposers change: verdicts of two versions do not mix in a
run.
"""
