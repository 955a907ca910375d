"""The version of what evidence means."""

EVIDENCE_VERSION = 9
"""Raised when numerics, tests, looks or proposers change: verdicts of two versions do not mix in a
run. Not where half precision is rounded in another way: a run goes on with the new answers of
near-ties, as it does on another processor.
"""
