"""The version of what evidence means."""

EVIDENCE_VERSION = 9
"""Raised when numerics, tests, looks or proposers change: verdicts of two versions do not mix in a
run. Not where numbers are only rounded in another way: a run goes on with the new answers of
near-ties in half precision, and trains on to rotations that differ in their last digits, as it does
on another processor.
"""
